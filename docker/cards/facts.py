"""Reads a card's YAML and checks the type of each fact; errors name the file, the fact and its value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cards import documents

_MAX_BYTES = 256 * 1024  # of card.yaml or serve.yaml
_MAX_WHOLE = 10**18  # largest whole number in a card: an exabyte
_MAX_GIBIBYTES = 1_000_000  # of memory: a petabyte
_SHOWN = 100  # characters of a value in an error
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class CardError(Exception):
    """A card is missing, or one of its facts is missing or wrong; the text is the one line to print."""


@dataclass(frozen=True)
class Facts:
    """A section of a YAML file. `above` is its path for errors, such as `hardware.`. Each method reads the fact `key`,
    and raises CardError if it is missing or of another type."""

    file: str
    above: str
    values: Mapping[str, object]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def only(self, *known: str) -> None:
        """Raise CardError if there is a fact other than `known`: most likely a typing mistake."""
        for key in self.values:
            if key not in known:
                raise CardError(
                    f"{self.file}: {self.above}{_key_text(key)} is not known: use {', '.join(known)}"
                )

    def text(self, key: str, pattern: str = r"(?s).*\S.*", wanted: str = "a text") -> str:
        """Return a printable text that `pattern` matches in full; `wanted` describes it in the error."""
        value = self.values.get(key)
        if not isinstance(value, str) or _UNPRINTABLE.search(value) or not re.fullmatch(pattern, value):
            raise self.wrong(key, wanted)
        return value

    def whole(self, key: str, least: int = 1) -> int:
        """Return a whole number of at least `least`."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:  # a bool is an int too
            raise self.wrong(key, f"a whole number from {least}")
        if value > _MAX_WHOLE:
            raise self.wrong(key, f"at most {_MAX_WHOLE}")
        return value

    def share(self, key: str, default: float) -> float:
        """Return a number above 0 and at most 1, such as vLLM's part of the memory; `default` if it is missing."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise self.wrong(key, "more than 0 and at most 1")
        return value

    def gibibytes(self, key: str) -> float:
        """Return a size in GiB above 0, such as that of vLLM's KV cache in the host's memory; 0 if it is missing."""
        value = self.values.get(key, 0)
        if key in self.values and not is_gibibytes(value):
            raise self.wrong(key, "a number of GiB above 0")
        assert isinstance(value, int | float)
        return value

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self.values.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def texts(self, key: str, pattern: str, wanted: str) -> tuple[str, ...]:
        """Return a list of at least one text; `pattern` matches each in full, and `wanted` describes the list."""
        value = self.values.get(key)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, wanted)
        if not all(isinstance(entry, str) and re.fullmatch(pattern, entry) for entry in value):
            raise self.wrong(key, wanted)
        return tuple(value)

    def section(self, key: str) -> "Facts":
        """Return the section `key`; errors about its facts name the whole path."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "a section")
        return Facts(self.file, f"{self.above}{key}.", value)

    def sections(self, key: str) -> tuple["Facts", ...]:
        """Return a list of sections."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.wrong(key, "a list of sections")
        return tuple(Facts(self.file, f"{self.above}{key}[{at}].", entry) for at, entry in enumerate(value))

    def wrong(self, key: str, wanted: str) -> CardError:
        """Return the error to raise for a fact that is missing or not what is `wanted`, here or by a rule in `card`."""
        found = f"is {_shown(self.values[key])}" if key in self.values else "is missing"
        return CardError(f"{self.file}: {self.above}{key} {found}: it must be {wanted}")


def is_gibibytes(value: object) -> bool:
    """Return whether the value is a number above 0 and at most a million GiB."""
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value <= _MAX_GIBIBYTES


def read(path: Path) -> Facts:
    """Read card.yaml or serve.yaml, a mapping of facts that are not checked yet. Raises CardError."""
    try:
        values = documents.parse_yaml(documents.read(path, _MAX_BYTES, follow=True))
    except OSError as error:
        raise CardError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CardError(f"{path} is not valid YAML for a card: {error}") from None
    if not isinstance(values, dict):
        raise CardError(f"{path} must be a mapping of facts")
    return Facts(str(path), "", values)


def _key_text(key: object) -> str:
    """Return a key as errors quote it; in YAML it may be of any type."""
    return key if isinstance(key, str) and key.isprintable() and len(key) <= _SHOWN else _shown(key)


def _shown(value: object) -> str:
    """Return a value as errors quote it, cut to 100 characters, so that an error stays one line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
