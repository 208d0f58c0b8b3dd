"""How a worker's body is framed: by a length, in chunks, or by the connection's end. Takes the frames off. No I/O.

llhttp parses the head alone: a chunk that arrives by itself, as vLLM sends them, is then known by a look at its first
line and its length, and can be handed on with its frame.
"""

import re
from functools import lru_cache
from typing import Final, Protocol

SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\r\n]*)?")
MOST_LINE_BYTES: Final = 4096  # of a size line or a trailer
CRLF: Final = b"\r\n"


class BadFraming(Exception):
    """The bytes are not framed as their head had said."""


class Framing(Protocol):
    """One body's frames. `complete`: its end has come; `surplus`: bytes came behind it."""

    complete: bool
    surplus: bool

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`; may be b"". Raises BadFraming."""
        ...

    def ends_with_connection(self) -> bool:
        """Whether the connection's end is the body's."""
        ...


class Sized:
    """A body with a length in bytes."""

    __slots__ = ("_left", "complete", "surplus")

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = length == 0
        self.surplus = False

    def feed(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left > 0:
            return data
        self.complete, self.surplus = True, self._left < 0
        return data[: self._left] if self.surplus else data

    def ends_with_connection(self) -> bool:
        return False


class UntilClose:
    """A body that ends with its connection."""

    __slots__ = ("complete", "surplus")

    def __init__(self) -> None:
        self.complete = self.surplus = False

    def feed(self, data: bytes) -> bytes:
        return data

    def ends_with_connection(self) -> bool:
        return True


class Chunked:
    """A chunked body. `between`: the next byte begins a chunk."""

    __slots__ = ("_data", "_left", "_step", "between", "complete", "surplus")

    def __init__(self) -> None:
        self._data = b""
        self._left = 0
        self._step = self._size
        self.between = True
        self.complete = self.surplus = False

    def is_one_chunk(self, data: bytes) -> bool:
        """Whether `data` is exactly one chunk, frame and all, and not the last. It need not be fed then."""
        if not self.between:
            return False
        line = data.find(CRLF, 1, 18)
        size = simple_size(data[:line]) if line > 0 else 0
        return size > 0 and len(data) == line + size + 4 and data.endswith(CRLF)

    def feed(self, data: bytes) -> bytes:
        self._data = self._data + data if self._data else data
        payload = []
        while self._data and not self.complete:
            part = self._step()
            if part is None:  # more must come first
                break
            payload.append(part)
        self.surplus = self.complete and self._data != b""
        self.between = not self._data and self._step == self._size
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def ends_with_connection(self) -> bool:
        return False

    def _size(self) -> bytes | None:
        line = self._line()
        if line is None:
            return None
        self._left = size_of(line)
        self._step = self._payload if self._left else self._trailer
        return b""

    def _payload(self) -> bytes:
        part, self._data = self._data[: self._left], self._data[self._left :]
        self._left -= len(part)
        if not self._left:
            self._step = self._chunk_end
        return part

    def _chunk_end(self) -> bytes | None:
        if len(self._data) < len(CRLF):
            return None
        if not self._data.startswith(CRLF):
            raise BadFraming("a chunk is longer than its size")
        self._data, self._step = self._data[len(CRLF) :], self._size
        return b""

    def _trailer(self) -> bytes | None:
        line = self._line()
        if line is None:
            return None
        self.complete = not line
        return b""

    def _line(self) -> bytes | None:
        """The next line without its end, which is taken off; None while it is not whole."""
        line, end, rest = self._data.partition(CRLF)
        if len(line) > MOST_LINE_BYTES + (not end):  # one byte of its end may have come
            raise BadFraming("a line between chunks is too long")
        if not end:
            return None
        self._data = rest
        return line


@lru_cache(maxsize=4096)
def simple_size(line: bytes) -> int:
    """The size in a chunk's first line if it holds nothing else, else 0. Kept, since sizes repeat."""
    match = SIZE_LINE.fullmatch(line)
    return int(match[1], 16) if match is not None and match[1] == line else 0


def size_of(line: bytes) -> int:
    """The size in a chunk's first line. Raises BadFraming."""
    match = SIZE_LINE.fullmatch(line)
    if match is None:
        raise BadFraming(f"{line[:40]!r} is no chunk size")
    return int(match[1], 16)
