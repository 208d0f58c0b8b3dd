"""API keys: one SHA-256 of a key a line, read again when the file changes. A key itself is never stored or logged. The
keys that `make api-key` writes are 256 random bits, so a fast hash is enough: there is nothing to guess."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from gateway.api.errors import ConfigError, InvalidApiKey

LINE = re.compile(r"sha256:([0-9a-f]{64})(?:\s+\S.*)?")


class KeyRing:
    """The accepted API keys. Without a key file every request passes, if the bind rule (settings.py) allows that."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._digests: frozenset[str] = frozenset()
        self.refresh()
        if path is not None and not self._digests:  # later, an emptied file is how the last key is taken back
            raise ConfigError(
                f"{path} holds no key: nobody could use the gateway; make api-key prints a line for it"
            )

    def refresh(self) -> bool:
        """Read the file again if it has changed, in each round of discovery, so that keys can be added and taken back
        without a restart; return whether it had. Raises ConfigError; the old keys then stay."""
        if self._path is None:
            return False
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return False
        self._digests = parse_keys(_read(self._path), self._path)
        self._stamp = stamp
        return True

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise InvalidApiKey unless the request, proxied or for the model list, carries an accepted key. The time that
        this takes tells nothing of a key, since digests are compared, and nobody can choose a digest."""
        if self._path is None:
            return
        if self._digests.isdisjoint([hash_key(key) for key in offered(headers)]):
            raise InvalidApiKey("No accepted API key was sent; send `Authorization: Bearer <key>`")


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


def hash_key(key: bytes) -> str:
    """Return a key's digest as it stands in the key file."""
    return hashlib.sha256(key).hexdigest()


def new_key() -> str:
    """Return a new key of 256 random bits, for `python -m gateway new-key` to print."""
    return "sk-octet-" + secrets.token_urlsafe(32)


def parse_keys(text: str, path: Path) -> frozenset[str]:
    """Return the digests in a key file. Raises ConfigError that names the wrong line."""
    digests = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise ConfigError(
                f"{path}:{number} is not `sha256:<64 hex digits> [name]`; make api-key prints such a line"
            )
        digests.add(match.group(1))
    return frozenset(digests)


def _stamp(path: Path) -> tuple[int, int]:
    """Return the key file's time of change and size, by which `refresh` sees a new content. Raises ConfigError."""
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(
            f"GATEWAY_API_KEYS_FILE={path}: {error.strerror}; make api-key writes one"
        ) from error
    return status.st_mtime_ns, status.st_size


def _read(path: Path) -> str:
    """Return the key file's text. Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"GATEWAY_API_KEYS_FILE={path} cannot be read: {error}") from error
