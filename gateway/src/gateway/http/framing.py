"""How a body is framed: by a length, in chunks, or by the connection's end. Takes the frames off. No I/O.

One reader for clients and workers. Time is linear in the bytes, however they are cut. Trailers are read and dropped:
nothing in them counts as a header. A chunk that arrives by itself, as vLLM sends them, is known by a look at its first
line and its length, and can be handed on with its frame.
"""

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final, Protocol

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;%b)?" % TEXT)
SIZE_LINE_BEGUN: Final = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;%b)?\r?" % TEXT)
FRAMES: Final = rb"(?i:content-length|transfer-encoding|host):"  # fields that no trailer may be
TRAILER: Final = re.compile(rb"(?!%b)%b:%b" % (FRAMES, TOKEN, TEXT))
TRAILER_BEGUN: Final = re.compile(rb"\r|%b(?::%b\r?)?" % (TOKEN, TEXT))
MAX_DIGITS: Final = 16  # of a chunk's size
MAX_LINE_BYTES: Final = 4096  # of a size line or a trailer
MAX_EXTENSION_BYTES: Final = 64 * 1024  # of all chunks of a body
MAX_TRAILERS: Final = 64
MAX_TRAILER_BYTES: Final = 16 * 1024
CRLF: Final = b"\r\n"


class BadFraming(Exception):
    """The bytes are not framed as their head had said. before: bytes of payload that came before that."""

    def __init__(self, message: str, before: int = 0) -> None:
        super().__init__(message)
        self.before = before


class Framing(Protocol):
    """One body's frames. `complete`: its end has come; `surplus`: how many bytes of that data are behind it."""

    complete: bool
    surplus: int

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`; may be b"". Raises BadFraming."""
        ...

    def ends_with_connection(self) -> bool:
        """Whether the connection's end is the body's."""
        ...


class Sized:
    """A body with a length in bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = length == 0
        self.surplus = 0

    def feed(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left > 0:
            return data
        self.complete, self.surplus, self._left = True, -self._left, 0
        return data[: -self.surplus] if self.surplus else data

    def ends_with_connection(self) -> bool:
        return False


class UntilClose:
    """A body that ends with its connection."""

    def __init__(self) -> None:
        self.complete, self.surplus = False, 0

    def feed(self, data: bytes) -> bytes:
        return data

    def ends_with_connection(self) -> bool:
        return True


class Part(IntEnum):
    """Of a chunked body: what comes next."""

    SIZE = 0
    PAYLOAD = 1
    CHUNK_END = 2
    TRAILER = 3


SIZE: Final = Part.SIZE
PAYLOAD: Final = Part.PAYLOAD
CHUNK_END: Final = Part.CHUNK_END
NEXT_TRAILER: Final = Part.TRAILER


class Chunked:
    """A chunked body. `between`: the next byte begins a chunk."""

    def __init__(self) -> None:
        self._part: Part = SIZE
        self._kept = b""  # of a line that is not whole
        self._left = 0  # bytes of the chunk
        self._extensions = self._trailers = self._trailer_bytes = 0
        self.between = True
        self.complete = False
        self.surplus = 0

    def is_one_chunk(self, data: bytes) -> bool:
        """Whether `data` is exactly one chunk, frame and all, and not the last. It need not be fed then."""
        if not self.between:
            return False
        line = data.find(CRLF, 1, 18)
        size = simple_size(data[:line]) if line > 0 else 0
        return size > 0 and len(data) == line + size + 4 and data.endswith(CRLF)

    def feed(self, data: bytes) -> bytes:
        if self._kept:
            data, self._kept = self._kept + data, b""
        payload: list[bytes] = []
        try:
            at = self._take(data, payload)
        except BadFraming as error:
            error.before = sum(map(len, payload))
            raise
        self.surplus = len(data) - at if self.complete else 0
        self.between = self._part is SIZE and not self._kept
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def ends_with_connection(self) -> bool:
        return False

    def _take(self, data: bytes, payload: list[bytes]) -> int:
        """Adds what there is to `payload`; returns how far `data` was read."""
        at, size = 0, len(data)
        while at < size and not self.complete:
            if self._part is PAYLOAD:
                at = self._payload(data, at, payload)
            elif self._part is CHUNK_END:
                at = self._chunk_end(data, at)
            elif (end := data.find(CRLF, at, at + MAX_LINE_BYTES + len(CRLF))) < 0:
                self._keep(data[at:])
                at = size
            elif self._part is SIZE:
                at = self._chunks(data, at, end, payload)
            else:
                self._trailer(data[at:end])
                at = end + len(CRLF)
        return at

    def _chunks(self, data: bytes, at: int, end: int, payload: list[bytes]) -> int:
        """From a size's line, which ends at `end`, on to what is no whole chunk: there may be many small ones."""
        while end >= 0:
            line = data[at:end]
            left = (len(line) <= MAX_DIGITS and simple_size(line)) or self._size_of(line)
            at = end + len(CRLF)
            end = at + left
            if not left or not data.startswith(CRLF, end):
                self._left = left
                self._part = PAYLOAD if left else NEXT_TRAILER
                break
            payload.append(data[at:end])
            at = end + len(CRLF)
            end = data.find(CRLF, at, at + MAX_LINE_BYTES + len(CRLF))
        return at

    def _payload(self, data: bytes, at: int, payload: list[bytes]) -> int:
        part = data[at : at + self._left]
        payload.append(part)
        self._left -= len(part)
        if not self._left:
            self._part = CHUNK_END
        return at + len(part)

    def _chunk_end(self, data: bytes, at: int) -> int:
        end = data[at : at + len(CRLF)]
        if not CRLF.startswith(end):
            raise BadFraming("a chunk is longer than its size")
        if len(end) < len(CRLF):
            self._kept = end
        else:
            self._part = SIZE
        return at + len(end)

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.complete = True
            return
        self._trailers += 1
        self._trailer_bytes += len(line) + len(CRLF)
        if TRAILER.fullmatch(line) is None:
            raise BadFraming(f"{line[:40]!r} is no field behind the last chunk")
        if self._trailers > MAX_TRAILERS or self._trailer_bytes > MAX_TRAILER_BYTES:
            raise BadFraming(
                f"there are more than {MAX_TRAILERS} fields or {MAX_TRAILER_BYTES} bytes behind the last chunk"
            )

    def _size_of(self, line: bytes) -> int:
        match = SIZE_LINE.fullmatch(line)
        if match is None:
            raise BadFraming(f"{line[:40]!r} is no chunk size")
        self._extensions += len(line) - match.end(1)
        if self._extensions > MAX_EXTENSION_BYTES:
            raise BadFraming(f"the chunks have more than {MAX_EXTENSION_BYTES} bytes of extensions")
        return int(match[1], 16)

    def _keep(self, line: bytes) -> None:
        """Keeps the beginning of a line, if it can become one."""
        if len(line) > MAX_LINE_BYTES + 1:  # one byte of its end may have come
            raise BadFraming("a line between chunks is too long")
        if (SIZE_LINE_BEGUN if self._part is SIZE else TRAILER_BEGUN).fullmatch(line) is None:
            raise BadFraming(f"{line[:40]!r} is no beginning of a line between chunks")
        self._kept = line


@lru_cache(maxsize=4096)
def simple_size(line: bytes) -> int:
    """The size in a chunk's first line if it holds nothing else, else 0. Kept, since sizes repeat."""
    match = SIZE_LINE.fullmatch(line)
    return int(match[1], 16) if match is not None and match[1] == line else 0
