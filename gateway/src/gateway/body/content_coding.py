"""Bodies that come compressed: which codings are taken, and what is in them. Pure, and slow: not for the event loop.

A few bytes can hold gigabytes: what comes out is bounded by the size that a body may have, and by how many times the
size of what came in it is. Compressed bytes are fed a few at a time, of which even zstd makes no more than 8 MiB, and
in turns, so that a short body need not wait for a long one.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final, Protocol

import brotli
import zstandard

from gateway.api.errors import GatewayError, InvalidRequest, RequestTooLarge, UnsupportedCoding

MAX_EXPANSION: Final = 200  # the size of what came; text that repeats itself a lot reaches a hundred
FREE_BYTES: Final = 1 << 20  # which any body may have, however small it came
MAX_FRAMES: Final = 1000  # one behind the other
FED_BYTES: Final = 256  # at a time
PIECE_BYTES: Final = 256 * 1024  # of what comes out of brotli at a time
TURN_BYTES: Final = 1 << 20  # of what comes out
TURN_PIECES: Final = 1024
MAX_WINDOW_BYTES: Final = 8 << 20  # of zstd: what RFC 9659 allows on the web
ENDS_EARLY: Final = "it ends too early"


class Decoder(Protocol):
    """Of one frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def coding_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The coding that a request's head names, None for a body as it is. Raises UnsupportedCoding."""
    named = [value.decode("latin-1") for name, value in headers if name == b"content-encoding"]
    if not named:
        return None
    words = [word.strip().lower().removeprefix("x-") for word in ",".join(named).split(",")]
    codings = [word for word in words if word not in ("", "identity")]
    if len(codings) > 1:
        raise UnsupportedCoding(f"The request body is compressed {len(codings)} times; compress it once")
    if codings and codings[0] not in DECODERS:
        raise UnsupportedCoding(
            f"Content-Encoding {codings[0][:40]!r} is not taken; use one of {UnsupportedCoding.taken}"
        )
    return codings[0] if codings else None


class Decoding:
    """One body that is being put together and decoded, to at most `most` bytes. coding: None for a body as it is;
    grown: by how many bytes in the last turn; body: what was in it, once that is all.

    Only whole `bytes` are joined: for these Python lets go of its lock, which a copy of 50 MiB would hold for 50 ms.
    """

    def __init__(self, parts: list[bytes], coding: str | None, most: int) -> None:
        self._parts = parts
        self._coding = coding
        self._most = most
        self._bound = min(most, max(FREE_BYTES, MAX_EXPANSION * sum(map(len, parts))))
        self._pieces: Iterator[bytes] | None = None
        self._found: list[bytes] = []
        self._size = 0  # of these
        self.grown = 0
        self.body: bytes | None = None

    def advance(self) -> None:
        """Works on for a few milliseconds. Raises RequestTooLarge or InvalidRequest, and then keeps nothing of it."""
        if self._coding is None:
            self.body = b"".join(self._parts)
            self._drop()
            return
        if self._pieces is None:
            parts, self._parts = self._parts, []
            self._pieces = DECODERS[self._coding](b"".join(parts))
        before = self._size
        try:
            is_all = self._take_turn(self._pieces, min(before + TURN_BYTES, self._bound + 1))
        except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as error:
            refusal: GatewayError | None = InvalidRequest(
                f"The request body is not valid {self._coding}: {error}"
            )
        else:
            refusal = self._too_large() if self._size > self._bound else None
        if refusal is not None:  # raised here, so that it has no context with frames that hold the body
            self._drop()
            raise refusal
        self.grown = self._size - before
        if is_all:
            self.body = b"".join(self._found)
            self._drop()

    def _take_turn(self, pieces: Iterator[bytes], stop: int) -> bool:
        """Whether that was all."""
        for _ in range(TURN_PIECES):
            piece = next(pieces, None)
            if piece is None:
                return True
            if piece:
                self._found.append(piece)
                self._size += len(piece)
            if self._size >= stop:
                break
        return False

    def _too_large(self) -> RequestTooLarge:
        if self._bound < self._most:
            return RequestTooLarge(
                f"The decoded request body is more than {MAX_EXPANSION} times as large as what was sent"
            )
        return RequestTooLarge(
            f"The decoded request body is larger than {self._most} bytes, the most that is taken"
        )

    def _drop(self) -> None:
        self._parts, self._found = [], []
        self._pieces = iter(())


# what is in a body, piece by piece


def framed(start: Callable[[], Decoder], coded: bytes) -> Iterator[bytes]:
    """A format of frames, of which several may stand one behind the other."""
    decoder, frames = start(), 1
    for at in range(0, len(coded), FED_BYTES):
        fed = coded[at : at + FED_BYTES]
        while fed:
            if decoder.eof:
                decoder, frames = start(), frames + 1
            if frames > MAX_FRAMES:
                raise EOFError(f"it has more than {MAX_FRAMES} parts")
            yield decoder.decompress(fed)
            fed = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        raise EOFError(ENDS_EARLY)


def inflated(coded: bytes) -> Iterator[bytes]:
    """`deflate` means zlib's format (RFC 1950); some clients send only what is inside, which begins otherwise."""
    is_zlib = coded[:1] and coded[0] & 15 == zlib.DEFLATED and int.from_bytes(coded[:2], "big") % 31 == 0
    return framed(partial(zlib.decompressobj, zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS), coded)


def unbrotlied(coded: bytes) -> Iterator[bytes]:
    decoder = brotli.Decompressor()
    for at in range(0, len(coded), FED_BYTES):
        if decoder.is_finished():
            raise EOFError("something stands behind its end")
        piece = decoder.process(coded[at : at + FED_BYTES], output_buffer_limit=PIECE_BYTES)
        yield piece
        while piece and not decoder.is_finished():  # there may be more of what these bytes stand for
            piece = decoder.process(b"", output_buffer_limit=PIECE_BYTES)
            yield piece
    if not decoder.is_finished():
        raise EOFError(ENDS_EARLY)


def zstd_decoder() -> Decoder:
    return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()


DECODERS: Final[Mapping[str, Callable[[bytes], Iterator[bytes]]]] = {
    "gzip": partial(framed, partial(zlib.decompressobj, zlib.MAX_WBITS | 16)),
    "deflate": inflated,
    "br": unbrotlied,
    "zstd": partial(framed, zstd_decoder),
}
