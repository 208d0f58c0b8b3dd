"""Parse the framing of a body and return its payload: framed by a length, in chunks, or by the connection's end. Pure.

Requests and workers' answers use the same parsers. Their time is linear in the bytes, however these are split over
reads. Trailers are parsed and dropped: they never count as headers. A read that is exactly one chunk, as vLLM's events
are, is recognized by its size line and length, and can be passed on unparsed."""

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final, Protocol

# Patterns of RFC 9112. "++" and "*+" never backtrack, so that no input takes long to match.
TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;%b)?" % TEXT)
SIZE_LINE_BEGUN: Final = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;%b)?\r?" % TEXT)
FRAMES: Final = rb"(?i:content-length|transfer-encoding|host):"  # not as trailers: others could obey them
TRAILER: Final = re.compile(rb"(?!%b)%b:%b" % (FRAMES, TOKEN, TEXT))
TRAILER_BEGUN: Final = re.compile(rb"\r|%b(?::%b\r?)?" % (TOKEN, TEXT))
MAX_DIGITS: Final = 16  # hex digits of a chunk's size: 64 bits
MAX_LINE_BYTES: Final = 4096  # bytes of a chunk's size line, or of a trailer; real ones are far shorter
MAX_EXTENSION_BYTES: Final = 64 * 1024  # of chunk extensions in a body: its size limit leaves them out
MAX_TRAILERS: Final = 64  # in a body
MAX_TRAILER_BYTES: Final = 16 * 1024  # in a body, all trailers together
CRLF: Final = b"\r\n"


class BadFraming(Exception):
    """The bytes break the framing that the head announced. before: payload bytes before the fault in that `feed`."""

    def __init__(self, message: str, before: int = 0) -> None:
        super().__init__(message)
        self.before = before


class Framing(Protocol):
    """Parser of one body; a connection feeds it until it is complete: its end was fed. surplus: bytes fed beyond it."""

    complete: bool
    surplus: int

    def feed(self, data: bytes) -> bytes:
        """Return the payload in `data`, the next bytes received, of which both may be b"". Raises BadFraming."""

    def ends_with_connection(self) -> bool:
        """Whether the connection's end completes the body, or breaks it off. Asked when one to a worker is lost."""


class Sized:
    """The `Framing` of a body of `length` bytes, as Content-Length gives it. Bytes beyond them are `surplus`."""

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
    """The `Framing` of an answer without length and chunks: all is payload until the worker closes; never complete."""

    def __init__(self) -> None:
        self.complete, self.surplus = False, 0

    def feed(self, data: bytes) -> bytes:
        return data

    def ends_with_connection(self) -> bool:
        return True


class ChunkPart(IntEnum):
    """What the next byte of a chunked body belongs to."""

    SIZE = 0  # a chunk's size line
    PAYLOAD = 1
    CHUNK_END = 2  # the CRLF after the payload
    TRAILER = 3  # a line after the last chunk; an empty one ends the body


SIZE: Final = ChunkPart.SIZE  # compiled code reads a constant of the module faster than a member of an enum
PAYLOAD: Final = ChunkPart.PAYLOAD
CHUNK_END: Final = ChunkPart.CHUNK_END
NEXT_TRAILER: Final = ChunkPart.TRAILER


class Chunked:
    """The `Framing` of a chunked body. between: the next byte begins a new chunk."""

    def __init__(self) -> None:
        self._part: ChunkPart = SIZE
        self._kept = b""  # the beginning of a line whose end has not arrived
        self._left = 0  # bytes of the current chunk's payload still to come
        self._extensions = self._trailers = self._trailer_bytes = 0  # bytes, number and bytes so far
        self.between = True
        self.complete = False
        self.surplus = 0

    def is_one_chunk(self, data: bytes) -> bool:
        """Whether `data` is one whole chunk, not the last, without extension: `WorkerConnection` relays it unparsed."""
        if not self.between:
            return False
        line = data.find(CRLF, 1, 18)  # after 1 to 16 digits
        size = simple_size(data[:line]) if line > 0 else 0
        return size > 0 and len(data) == line + size + 4 and data.endswith(CRLF)  # 4: CRLF twice

    def feed(self, data: bytes) -> bytes:
        """As `Framing.feed`. An incomplete line at the end of `data` is kept and parsed with the next bytes."""
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
        """Append the payload in `data` to `payload`; return the index after the last byte used: the rest is surplus."""
        at, size = 0, len(data)
        while at < size and not self.complete:
            if self._part is PAYLOAD:
                at = self._take_payload(data, at, payload)
            elif self._part is CHUNK_END:
                at = self._take_chunk_end(data, at)
            elif (end := data.find(CRLF, at, at + MAX_LINE_BYTES + len(CRLF))) < 0:
                self._keep_line(data[at:])
                at = size
            elif self._part is SIZE:
                at = self._take_whole_chunks(data, at, end, payload)
            else:
                self._drop_trailer(data[at:end])
                at = end + len(CRLF)
        return at

    def _take_whole_chunks(self, data: bytes, at: int, end: int, payload: list[bytes]) -> int:
        """Append the payload of all whole chunks from the size line `data[at:end]` on to `payload`; return the index of
        what follows: the payload of a chunk that is incomplete or ends badly, a trailer or an incomplete line."""
        while end >= 0:  # a loop, without a call for each chunk: chunks may be tiny
            line = data[at:end]  # a long one has an extension: it is not for the cache of `simple_size`
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

    def _take_payload(self, data: bytes, at: int, payload: list[bytes]) -> int:
        """Append what `data` has of the current chunk's payload, from `at` on, to `payload`; return the index after."""
        part = data[at : at + self._left]
        payload.append(part)
        self._left -= len(part)
        if not self._left:
            self._part = CHUNK_END
        return at + len(part)

    def _take_chunk_end(self, data: bytes, at: int) -> int:
        """Skip the CRLF after a chunk's payload, or keep half of it; return the index after it. Raises BadFraming."""
        end = data[at : at + len(CRLF)]
        if not CRLF.startswith(end):
            raise BadFraming("a chunk is longer than its size")
        if len(end) < len(CRLF):
            self._kept = end
        else:
            self._part = SIZE
        return at + len(end)

    def _drop_trailer(self, line: bytes) -> None:
        """Check a trailer and drop it; an empty line completes the body. Raises BadFraming."""
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
        """Return the size that `simple_size` cannot read: 0, or one with an extension (counted). Raises BadFraming."""
        match = SIZE_LINE.fullmatch(line)
        if match is None:
            raise BadFraming(f"{line[:40]!r} is no chunk size")
        self._extensions += len(line) - match.end(1)
        if self._extensions > MAX_EXTENSION_BYTES:
            raise BadFraming(f"the chunks have more than {MAX_EXTENSION_BYTES} bytes of extensions")
        return int(match[1], 16)

    def _keep_line(self, line: bytes) -> None:
        """Keep the beginning of a line for the next `feed`. Raises BadFraming if no valid line begins so."""
        if len(line) > MAX_LINE_BYTES + 1:  # its "\r" may have arrived
            raise BadFraming("a line between chunks is too long")
        if (SIZE_LINE_BEGUN if self._part is SIZE else TRAILER_BEGUN).fullmatch(line) is None:
            raise BadFraming(f"{line[:40]!r} is no beginning of a line between chunks")
        self._kept = line


@lru_cache(maxsize=4096)  # lines, which take about a MiB
def simple_size(line: bytes) -> int:
    """Return the size in a size line that holds nothing else, or 0 (also for any other line). Cached: sizes repeat."""
    match = SIZE_LINE.fullmatch(line)
    return int(match[1], 16) if match is not None and match[1] == line else 0
