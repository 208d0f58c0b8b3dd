"""Parses JSON that other containers may have written, and checks the type of every field. Pure. Whatever is wrong
raises `ValueError` with one line, also where Python's parser accepts it or raises another error: deep nesting, numbers
that are not finite or too long, invalid Unicode."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_WHOLE = 2**63 - 1  # default bound of whole numbers, which are bytes, nanoseconds or counts
_MAX_NUMBER = 40  # characters of a whole number; `MAX_WHOLE` has 19
_SHOWN = 80  # characters of a value in an error


def parse(content: bytes) -> object:
    """Return the value of a JSON text, for `Fields.of` to check. Raises `ValueError`."""
    try:
        return json.loads(
            content.decode(), parse_int=_whole, parse_float=_finite, parse_constant=_not_a_number
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def shown(value: object) -> str:
    """Return a value as errors quote it, cut to 80 characters: an error is one line of a log."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@dataclass(frozen=True)
class Fields:
    """A JSON object whose fields are read by type. `above` is the path to it for errors, such as `files[3].`. Each
    method returns the field `name`; a missing field or one of another type raises `ValueError`."""

    values: Mapping[str, object]
    above: str = ""

    @classmethod
    def of(cls, value: object, above: str = "") -> "Fields":
        """Wrap a parsed JSON value. Raises `ValueError` if it is not an object."""
        if not isinstance(value, dict):
            raise ValueError(f"{above.rstrip('.') or 'it'} is {shown(value)} where an object was expected")
        return cls(value, above)

    def text(self, name: str, pattern: str = r"(?s).*", most: int = 4096) -> str:
        """Return a string that matches `pattern` in full, has no NUL and at most `most` bytes (by default ample)."""
        value = self._get(name)
        if not isinstance(value, str) or "\0" in value or not re.fullmatch(pattern, value):
            raise self._wrong(name, "another text")
        try:
            fits = len(value.encode()) <= most
        except UnicodeEncodeError:
            fits = False
        if not fits:
            raise self._wrong(name, f"a text of at most {most} bytes of UTF-8")
        return value

    def text_or_none(self, name: str, most: int = 4096) -> str | None:
        """Return a string, or None for null."""
        return None if self._get(name) is None else self.text(name, most=most)

    def whole(self, name: str, least: int = 0, most: int = MAX_WHOLE) -> int:
        """Return a whole number from `least` to `most`."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._wrong(name, f"a whole number from {least} to {most}")
        return value

    def whole_or_none(self, name: str) -> int | None:
        """Return a whole number, or None for null."""
        return None if self._get(name) is None else self.whole(name)

    def number(self, name: str, most: float) -> float:
        """Return a number from 0 to `most`."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise self._wrong(name, f"a number from 0 to {most:g}")
        return float(value)

    def flag_or_none(self, name: str) -> bool | None:
        """Return a boolean, or None for null."""
        value = self._get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, "true, false or null")
        return value

    def section(self, name: str) -> "Fields":
        """Return the field, which is an object; errors in it name the path to it."""
        return Fields.of(self._get(name), f"{self.above}{name}.")

    def sections(self, name: str, most: int) -> tuple["Fields", ...]:
        """Return the field, which is a list of at most `most` objects."""
        return tuple(
            Fields.of(value, f"{self.above}{name}[{at}].") for at, value in enumerate(self.items(name, most))
        )

    def items(self, name: str, most: int) -> list[object]:
        """Return the field, which is a list of at most `most` values of any type."""
        value = self._get(name)
        if not isinstance(value, list) or len(value) > most:
            raise self._wrong(name, f"a list of at most {most}")
        return value

    def _get(self, name: str) -> object:
        """Return the field's value, unchecked; None stands for null. Raises `ValueError` if the field is missing."""
        if name not in self.values:
            raise ValueError(f"{self.above}{name} is missing")
        return self.values[name]

    def _wrong(self, name: str, wanted: str) -> ValueError:
        """Return the error to raise for a field that is there and is not what is `wanted`."""
        return ValueError(f"{self.above}{name} is {shown(self.values[name])} where {wanted} was expected")


def _whole(text: str) -> int:
    """Return the whole number in a JSON text. Raises `ValueError` for too many digits, which would convert slowly."""
    if len(text) > _MAX_NUMBER:
        raise ValueError(f"the number {shown(text)} is too long")
    return int(text)


def _finite(text: str) -> float:
    """Return the number in a JSON text; raises `ValueError` for one that Python would take for infinity."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(text)} is too large")
    return value


def _not_a_number(text: str) -> float:
    """Raise `ValueError` for the words NaN and Infinity, which Python's parser takes for numbers and JSON does not."""
    raise ValueError(f"{text} is no number")
