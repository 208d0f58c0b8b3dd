"""The key file: one hashed key a line, or YAML that gives each key a name and rights. Read whole, or refused with the
line or key and what to do. Nothing that it holds is repeated in an error if it might be a key."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PositiveInt, ValidationError

from gateway.api.errors import ConfigError, NotNow
from gateway.config import yaml_file
from gateway.config.api_keys import UNLIMITED, ApiKey, Limits, Priority
from gateway.config.file_watch import check_linked
from gateway.config.model_options import Models
from gateway.config.policies import StrictModel

SETTING = "GATEWAY_API_KEYS_FILE"
MAX_BYTES = 4 * 1024 * 1024  # some 40,000 lines, which a thread reads in a fraction of a second
NONE = re.compile(r"keys:\s*\{\s*\}\s*(#.*)?")
LINE = re.compile(r"sha256:([0-9a-f]{64})(?:\s+(\S.*))?")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
OTHER, UNNAMED = "other", "unnamed"  # in metrics: of names beyond those counted; of lines without a name
RESERVED = (OTHER, UNNAMED, "none")
MAX_AMOUNT = 10**15
MAX_WEIGHT = 1000
LAST_SECOND = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()  # its end rounds into year 10000
SECRET = re.compile(r"sk-octet-[A-Za-z0-9_-]{8,}|\bsk-[A-Za-z0-9_-]{8,}|\b[0-9a-f]{64}\b")
USER = re.compile(r"//[^/\s@]+@")
BAD_MOMENT = "must be a date, such as 2027-06-30, or a time with its zone, such as 2027-06-30T18:00:00Z"


def moment_of(value: object, of_day: time) -> float:
    """Return a date or time, as the file has it, as Unix seconds. of_day: which moment a mere date is. Raises
    ValueError, for pydantic."""
    try:
        if not isinstance(value, str):
            raise ValueError
        if len(value) == len("2027-06-30"):
            found = datetime.combine(date.fromisoformat(value), of_day, UTC)
        else:
            found = datetime.fromisoformat(value)
        if found.tzinfo is None:
            raise ValueError
        return min(found.astimezone(UTC).timestamp(), LAST_SECOND)
    except (ValueError, OverflowError):
        raise ValueError(BAD_MOMENT) from None


def begin_of(value: object) -> float:
    """Return when a date begins, or a time, for `not_before` and `revoked`."""
    return moment_of(value, time.min)


def end_of(value: object) -> float:
    """Return when a date ends, or a time, for `expires`: on its last day a key is still valid."""
    return moment_of(value, time.max)


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Begin = Annotated[float, BeforeValidator(begin_of)]
End = Annotated[float, BeforeValidator(end_of)]
Amount = Annotated[PositiveInt, Field(le=MAX_AMOUNT)]


class WrittenLimits(StrictModel):
    """The limits of a key as written; `Limits` says what they mean."""

    rpm: Amount | None = None
    tpm_in: Amount | None = None
    tpm_out: Amount | None = None
    concurrency: Amount | None = None
    monthly_tokens: Amount | None = None


class WrittenKey(StrictModel):
    """One key as written. Two digests: the key is being replaced, and both work."""

    sha256: Annotated[list[Digest], Field(min_length=1, max_length=2)]
    models: Annotated[list[str], Field(min_length=1)] | None = None
    limits: WrittenLimits = WrittenLimits()
    priority: Literal["interactive", "normal", "bulk"] = "normal"
    weight: Annotated[PositiveInt, Field(le=MAX_WEIGHT)] = 1
    not_before: Begin | None = None
    expires: End | None = None
    revoked: Begin | None = None
    admin: bool = False


class WrittenFile(StrictModel):
    """The YAML form as written."""

    keys: Mapping[Annotated[str, Field(pattern=NAME)], WrittenKey] | None


class Loader(yaml_file.UniqueKeys, yaml_file.Plain):
    """Reads the YAML form. Dates stay text, so that a wrong one can be named with its key."""


def as_written(_: Loader, node: yaml.Node) -> str:
    """Return a scalar as it is written, for the library to use instead of a date."""
    return str(node.value)


Loader.add_constructor("tag:yaml.org,2002:timestamp", as_written)


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of the file: its rights, and the digests by which it is known."""

    key: ApiKey
    digests: tuple[str, ...]


def read(path: Path, models: Models) -> tuple[Entry, ...]:
    """Read the key file. Raises ConfigError."""
    return parse(text_of(path), path, models)


def text_of(path: Path) -> str:
    """Return the key file's text. Raises ConfigError; NotNow if its content is not to blame."""
    try:
        check_linked(path, SETTING)
    except OSError as error:
        raise NotNow(f"{SETTING}={path}: {error.strerror}; make key writes one") from error
    return yaml_file.read(path, SETTING, MAX_BYTES)


def parse(text: str, path: Path, models: Models) -> tuple[Entry, ...]:
    """Return the keys in a key file's text, whichever form it has. Raises ConfigError, the text of which has no key."""
    try:
        return parse_yaml(text, path, models) if is_yaml(text) else parse_lines(text, path)
    except ConfigError as error:
        raise ConfigError(without_secrets(str(error))) from None  # what it came from may quote a key


def without_secrets(text: str) -> str:
    """Return an error's text without what might be a key, a digest, or a user and password in an address."""
    return USER.sub("//***@", SECRET.sub("***", text))


def parse_yaml(text: str, path: Path, models: Models) -> tuple[Entry, ...]:
    """Return the keys in a text of the YAML form. Raises ConfigError, in which a key may still stand."""
    if len(text) > yaml_file.MAX_BYTES:  # one of a MiB would hold up streams for 0.4 s while it is read
        raise ConfigError(
            f"{path} is larger than {yaml_file.MAX_BYTES} bytes, which is the most for one that begins with `keys:`: "
            "remove entries that expired or were revoked long ago"
        )
    try:
        written = WrittenFile.model_validate(yaml_file.parse(text, path, Loader))
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error)}; see docs/configuration.md") from error
    fault = next(faults(written, models), None)
    if fault is not None:
        raise ConfigError(f"{path}: {fault}")
    return tuple(entry_of(name, key, models) for name, key in (written.keys or {}).items())


def is_yaml(text: str) -> bool:
    """Return whether the text is of the YAML form: its first line that is no comment begins with `keys:`."""
    return first_line(text).startswith("keys:")


def says_none(text: str) -> bool:
    """Return whether the text says that there is no key: `keys: {}`. One that is merely empty may have been cut off."""
    return NONE.fullmatch(first_line(text)) is not None


def first_line(text: str) -> str:
    """Return the first line that is neither blank nor a comment; empty if there is none."""
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return next(lines, "")


def parse_lines(text: str, path: Path) -> tuple[Entry, ...]:
    """Return the keys in a file that has one a line; each may do anything. Lines of one name are one key, so that it
    can be replaced. Raises ConfigError that names the wrong line."""
    found: dict[str, tuple[int, str]] = {}  # line and name, by digest
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise ConfigError(
                f"{path}:{number} is not `sha256:<64 hex digits> [name]`, as make api-key prints it; one with rights "
                "begins with `keys:` (docs/configuration.md)"
            )
        digest, name = match[1], match[2] or UNNAMED
        if SECRET.search(name):
            raise ConfigError(
                f"{path}:{number}: its name looks like a key, which must not stand here: choose another"
            )
        first, named = found.setdefault(digest, (number, name))
        if named != name:
            raise ConfigError(
                f"{path}:{number} is the key of line {first} under another name: remove one of them"
            )
    return tuple(Entry(ApiKey(name), (digest,)) for digest, (_, name) in found.items())


def entry_of(name: str, written: WrittenKey, models: Models) -> Entry:
    """Return a key of the YAML form. The right to a model is a right to its aliases, which do no more than a client
    could ask of the model; the right to an alias is none to its model, without what the alias sets."""
    key = ApiKey(
        name,
        models=None if written.models is None else frozenset(models.listed(written.models)),
        limits=limits_of(written.limits),
        priority=Priority[written.priority.upper()],
        admin=written.admin,
        not_before=written.not_before,
        expires=written.expires,
        revoked=written.revoked,
        weight=written.weight,
    )
    return Entry(key, tuple(written.sha256))


def limits_of(written: WrittenLimits) -> Limits:
    """Return a key's limits; UNLIMITED itself if it has none."""
    limits = Limits(**written.model_dump())
    return UNLIMITED if limits == UNLIMITED else limits


def faults(file: WrittenFile, models: Models) -> Iterator[str]:
    """Yield what is wrong with the file as a whole, each as key, fault and remedy. `parse` refuses the first."""
    owners: dict[str, str] = {}
    for name, key in (file.keys or {}).items():
        if SECRET.search(name):
            yield "keys: a name looks like a key, which must not stand in this file: choose another name"
        if name in RESERVED:
            yield f"keys.{name}: metrics use this name for others: choose another one"
        for digest in key.sha256:
            if digest in owners:
                yield f"keys.{name}.sha256: {digest[:8]}... is keys.{owners[digest]}'s already: remove one of them"
            owners[digest] = name
        wanted = key.models if key.revoked is None else None  # a revoked key may outlive its models
        for model in wanted or ():
            if not models.has(model):
                known = ", ".join([*models.options, *models.aliases])
                yield f"keys.{name}.models: {model!r:.80} is no model or alias; it must be one of {known}"
        if key.not_before is not None and key.expires is not None and key.expires <= key.not_before:
            yield f"keys.{name}.expires: is not after not_before: the key would never be valid"


def first_problem(error: ValidationError) -> str:
    """Return the first fault that pydantic found in the file, in words: its key, and what must be there."""
    problem = error.errors()[0]
    loc, kind = problem["loc"], problem["type"]
    where = ".".join(str(part) for part in loc) or "the file"
    if kind == "extra_forbidden":
        told = f"{where} is no key that is known here"
    elif loc[-1:] == ("[key]",):
        told = (
            f"{where.removesuffix('.[key]')}: a name is at most 64 letters, digits and ._-, and does not begin with "
            'one of these three; one that looks like a number or a word of YAML needs quotes: "123"'
        )
    elif "sha256" in loc:
        told = f"{where}: must be one or two SHA-256 hashes of keys, 64 hex digits each; make key makes them"
    else:
        told = f"{where}: {said(problem)}"
    return told


def said(problem: Mapping[str, Any]) -> str:
    """Return what pydantic says of a value, and the value."""
    message = problem["msg"].removeprefix("Value error, ")
    return message if problem["type"] == "missing" else f"{message}, not {problem['input']!r:.80}"
