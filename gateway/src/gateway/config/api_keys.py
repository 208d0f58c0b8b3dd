"""An API key: what its holder may do, and the key itself, which is never stored or logged. The keys that `make key`
writes are 256 random bits, so a fast hash is enough: there is nothing to guess."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, IntEnum
from typing import Final

PREFIX: Final = "sk-octet-"  # of a key; scanners for secrets can know it
WHOLE: Final = re.compile(rb"sk-octet-[A-Za-z0-9_-]{43}")
HASH: Final = re.compile(rb"(sha256:)?[0-9a-f]{64}")
CLASS_SPAN: Final = 1_000_000  # numbers of one class at the engine


class Priority(IntEnum):
    """Whose requests go first. As in vLLM, the lower number does."""

    INTERACTIVE = 0
    NORMAL = 1
    BULK = 2

    @property
    def label(self) -> str:
        """Return its name in files, lists and metrics."""
        return self.name.lower()

    def at_engine(self, own: object) -> int:
        """Return the number by which vLLM orders its waiting requests. own: the client's `priority`, which orders the
        requests of its class, and makes none overtake a higher class."""
        within = own if isinstance(own, int) else 0
        return self.value * CLASS_SPAN + max(0, min(within, CLASS_SPAN - 1))


class Standing(Enum):
    """Whether a key is accepted, and why not, as `make keys` lists it."""

    VALID = "valid"
    EARLY = "not yet valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a key may use; None: as much as it likes. rpm: requests a minute; tpm_in, tpm_out: prompt and completion
    tokens a minute; concurrency: requests at a time; monthly_tokens: of both kinds in a calendar month (UTC)."""

    rpm: int | None = None
    tpm_in: int | None = None
    tpm_out: int | None = None
    concurrency: int | None = None
    monthly_tokens: int | None = None


UNLIMITED: Final = Limits()  # of a key without limits: this object, so that a request only compares it


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who sends a request, and what for. Its handler carries it. The key file makes a new object each time it is read,
    so what must outlive a change of the file goes by `name`. label: the name in metrics; edition: which reading of the
    file it is of; models: the names that a request may have in `model`, None for all; the moments are Unix seconds;
    weight: its share beside other keys of its class; salt: of the prefix cache of its requests, b"" for none."""

    name: str
    label: str = ""
    models: frozenset[str] | None = None
    limits: Limits = UNLIMITED
    priority: Priority = Priority.NORMAL
    admin: bool = False
    not_before: float | None = None
    expires: float | None = None
    revoked: float | None = None
    edition: int = 0
    weight: int = 1
    salt: bytes = b""

    def may_use(self, model: str) -> bool:
        """Return whether a request with this key may name `model`, which is a model or an alias."""
        return self.models is None or model in self.models

    def standing(self, now: float) -> Standing:
        """Return whether the key is accepted at `now`, Unix seconds of a clock that may jump."""
        if self.revoked is not None:
            return Standing.REVOKED
        if self.not_before is not None and now < self.not_before:
            return Standing.EARLY
        if self.expires is not None and now >= self.expires:
            return Standing.EXPIRED
        return Standing.VALID


ANYONE: Final = ApiKey("")  # who sends a request where no keys are needed, or has not shown one


def moment(seconds: float) -> str:
    """Return Unix seconds as people are told them: ISO 8601, UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def why_refused(key: ApiKey, standing: Standing) -> str:
    """Return why a key of the file is not accepted, in words for who holds it, and what to do."""
    if standing is Standing.EARLY:
        return f"This API key is not valid before {moment(key.not_before or 0)}: send it again then"
    if key.revoked is not None:
        ended = f"was revoked at {moment(key.revoked)}"
    else:
        ended = f"expired at {moment(key.expires or 0)}"
    return f"This API key {ended}: ask the operator for another one"


def offered(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the keys in a request: from `Authorization: Bearer <key>` and, as Anthropic's clients send it,
    `x-api-key: <key>`. A client may send both, and one of them may be meant for another service."""
    keys = []
    for name, value in headers:
        if name == b"x-api-key":
            keys.append(value.strip())
        elif name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                keys.append(key.strip())
    return keys


def why_two(one: str, other: str) -> str:
    """Return why a request with two accepted keys is refused, and what to do. one, other: their names."""
    return f"Two API keys were sent, of {one!r:.80} and {other!r:.80}: send one, as Authorization or as x-api-key"


def why_unknown(keys: Sequence[bytes], headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return why none of the offered `keys` is in the key file, in words that tell nothing of it and what to do."""
    sent = [key for key in keys if key]
    if any(HASH.fullmatch(key) for key in sent):
        return "What was sent is the hash of a key: send the key itself"
    if any(key.startswith(PREFIX.encode()) and not WHOLE.fullmatch(key) for key in sent):
        return f"This API key is malformed: a whole one has {len(PREFIX) + 43} characters; copy it again"
    if sent:
        return "This API key is unknown: copy it again, or ask the operator for one"
    if any(name == b"authorization" for name, _ in headers):
        return "The Authorization header has no API key: it must be `Bearer <key>`"
    return "No API key was sent: send `Authorization: Bearer <key>`"


def hash_key(key: bytes) -> str:
    """Return a key's digest as it stands in the key file."""
    return hashlib.sha256(key).hexdigest()


def salt_from(secret: bytes, of: bytes) -> bytes:
    """Return a salt of the prefix cache, which nobody guesses who does not know `secret`; vLLM takes its characters."""
    return base64.urlsafe_b64encode(hmac.digest(secret, of, "sha256")).rstrip(b"=")


def new_key() -> str:
    """Return a new key of 256 random bits, to be printed once."""
    return PREFIX + secrets.token_urlsafe(32)
