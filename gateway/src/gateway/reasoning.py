"""A model's reasoning under both of its names: `reasoning`, as vLLM writes, and `reasoning_content`, as it did before.

Done on bytes, without reading the JSON: `"reasoning":` cannot stand inside a string of JSON, where a backslash comes
before each quote, so it is a key. Its value is repeated under the other name; all other bytes stay as they are.
"""

import re

KEY, FORMER_KEY = b'"reasoning":', b'"reasoning_content":'
FIELD = re.compile(KEY + rb'(\s*(?:null|"[^"\\]*(?:\\.[^"\\]*)*"))')
BOTH = KEY + rb"\1," + FORMER_KEY + rb"\1"
MOST_HELD = 1 << 20  # bytes of a line, or of a whole answer; what is longer passes as it is


def under_both_names(data: bytes) -> bytes:
    """`data`, whole lines or a whole body of JSON, with each `reasoning` (text or null) under both names."""
    if KEY not in data or FORMER_KEY in data:
        return data
    return FIELD.sub(BOTH, data)


class Lines:
    """A stream's bytes as whole lines: an event that comes in pieces is held back until its line ends."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be handed on now; may be b""."""
        data = self._held + data if self._held else data
        end = len(data) if data.endswith(b"\n") else data.rfind(b"\n") + 1
        if len(data) - end > MOST_HELD:
            end = len(data)
        self._held = data[end:]
        return under_both_names(data[:end])

    def rest(self) -> bytes:
        """What is still held when the stream ends."""
        held, self._held = self._held, b""
        return under_both_names(held)


class Whole:
    """An answer's bytes, held back until it is whole; one that is longer than MOST_HELD passes as it is."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bytes:
        """What can be handed on now: b"" until the answer is too long, then everything."""
        self._parts.append(data)
        self._size += len(data)
        return self._taken() if self._size > MOST_HELD else b""

    def rest(self) -> bytes:
        """The whole answer, if all of it is held."""
        return under_both_names(self._taken())

    def _taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
