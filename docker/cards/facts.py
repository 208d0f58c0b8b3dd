"""A card's YAML, read with its types checked; an error names the file, the fact and its value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cards import documents

_LARGEST_BYTES = 256 * 1024
_LARGEST = 10**18
"""The largest whole number that a card may mean: an exabyte."""
_SHOWN = 100
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class CardError(Exception):
    """A card is missing, or a fact of it is; the text is the one line to print."""


@dataclass(frozen=True)
class Facts:
    """A section of a file. `above` is what stands before a fact's name, such as `hardware.`."""

    file: str
    above: str
    values: Mapping[str, object]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def only(self, *known: str) -> None:
        """Raises CardError for a fact that nobody reads: most likely a typing mistake."""
        for key in self.values:
            if key not in known:
                raise CardError(
                    f"{self.file}: {self.above}{_named(key)} is not known: use {', '.join(known)}"
                )

    def text(self, key: str, pattern: str = r"(?s).*\S.*", wanted: str = "a text") -> str:
        """A text of which `pattern` describes the whole. Raises CardError, which says what is `wanted`."""
        value = self.values.get(key)
        if not isinstance(value, str) or _UNPRINTABLE.search(value) or not re.fullmatch(pattern, value):
            raise self.wrong(key, wanted)
        return value

    def whole(self, key: str, least: int = 1) -> int:
        """A whole number of at least `least`. Raises CardError."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f"a whole number from {least}")
        if value > _LARGEST:
            raise self.wrong(key, f"at most {_LARGEST}")
        return value

    def share(self, key: str, default: float) -> float:
        """A number above 0 and at most 1. Raises CardError."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise self.wrong(key, "more than 0 and at most 1")
        return value

    def flag(self, key: str) -> bool:
        """Raises CardError."""
        value = self.values.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def texts(self, key: str, pattern: str, wanted: str) -> tuple[str, ...]:
        """A list of at least one text; `pattern` describes the whole of each. Raises CardError."""
        value = self.values.get(key)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, wanted)
        if not all(isinstance(entry, str) and re.fullmatch(pattern, entry) for entry in value):
            raise self.wrong(key, wanted)
        return tuple(value)

    def section(self, key: str) -> "Facts":
        """Raises CardError."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "a section")
        return Facts(self.file, f"{self.above}{key}.", value)

    def sections(self, key: str) -> tuple["Facts", ...]:
        """A list of sections. Raises CardError."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.wrong(key, "a list of sections")
        return tuple(Facts(self.file, f"{self.above}{key}[{at}].", entry) for at, entry in enumerate(value))

    def wrong(self, key: str, wanted: str) -> CardError:
        """The error for a fact that is missing or not what it must be."""
        found = f"is {_shown(self.values[key])}" if key in self.values else "is missing"
        return CardError(f"{self.file}: {self.above}{key} {found}: it must be {wanted}")


def read(path: Path) -> Facts:
    """The facts of a YAML file. Raises CardError."""
    try:
        values = documents.parse_yaml(documents.read(path, _LARGEST_BYTES, follow=True))
    except OSError as error:
        raise CardError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CardError(f"{path} is not valid YAML for a card: {error}") from None
    if not isinstance(values, dict):
        raise CardError(f"{path} must be a mapping of facts")
    return Facts(str(path), "", values)


def _named(key: object) -> str:
    """A key of a mapping, which YAML lets be anything."""
    return key if isinstance(key, str) and key.isprintable() and len(key) <= _SHOWN else _shown(key)


def _shown(value: object) -> str:
    """A value as an error quotes it, cut to a bounded length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
