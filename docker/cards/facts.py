"""A card's YAML, read with its types checked; an error names the file, the fact and its value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml


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
                raise CardError(f"{self.file}: {self.above}{key} is not known: use {', '.join(known)}")

    def text(self, key: str, pattern: str = r"(?s).*\S.*", wanted: str = "a text") -> str:
        """A text of which `pattern` describes the whole. Raises CardError, which says what is `wanted`."""
        value = self.values.get(key)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.wrong(key, wanted)
        return value

    def whole(self, key: str, least: int = 1) -> int:
        """A whole number of at least `least`. Raises CardError."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f"a whole number from {least}")
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

    def section(self, key: str) -> Facts:
        """Raises CardError."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "a section")
        return Facts(self.file, f"{self.above}{key}.", value)

    def sections(self, key: str) -> tuple[Facts, ...]:
        """A list of sections. Raises CardError."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.wrong(key, "a list of sections")
        return tuple(Facts(self.file, f"{self.above}{key}[{at}].", entry) for at, entry in enumerate(value))

    def wrong(self, key: str, wanted: str) -> CardError:
        """The error for a fact that is missing or not what it must be."""
        found = f"is {self.values[key]!r}" if key in self.values else "is missing"
        return CardError(f"{self.file}: {self.above}{key} {found}: it must be {wanted}")


def read(path: Path) -> Facts:
    """The facts of a YAML file. Raises CardError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CardError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise CardError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise CardError(f"{path} must be a mapping of facts")
    return Facts(str(path), "", values)
