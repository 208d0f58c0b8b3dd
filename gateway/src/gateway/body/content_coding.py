"""Decode compressed request bodies. Pure, but slow: `offload` runs it in a thread, not on the event loop.

A few bytes can expand to gigabytes. So the result is bounded by the largest body allowed, and by a multiple of what
came in. Compressed bytes are fed a few at a time (even zstd makes at most 8 MiB of them), and in turns, so that a
short body need not wait for a long one."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final, Protocol

import brotli
import zstandard

from gateway.api.errors import GatewayError, InvalidRequest, RequestTooLarge, UnsupportedCoding

MAX_EXPANSION: Final = 200  # times the compressed size; very repetitive text reaches a hundred
FREE_BYTES: Final = 1 << 20  # bytes that any body may expand to, however small it came
MAX_FRAMES: Final = 1000  # compressed frames, one behind the other, in one body; each costs a new decoder
FEED_BYTES: Final = 256  # compressed bytes that a decoder gets at a time
PIECE_BYTES: Final = 256 * 1024  # decoded bytes that brotli returns at a time, at most
TURN_BYTES: Final = 1 << 20  # decoded bytes per turn, about: a few milliseconds
TURN_PIECES: Final = 1024  # calls of a decoder per turn, at most, since a call may return nothing
MAX_WINDOW_BYTES: Final = 8 << 20  # of zstd; RFC 9659 allows no more on the web
ENDS_EARLY: Final = "it ends too early"


class Decoder(Protocol):
    """What the objects of `zlib.decompressobj` and `ZstdDecompressor.decompressobj` share. Each decodes one frame."""

    @property
    def eof(self) -> bool:
        """Whether the frame is complete."""

    @property
    def unused_data(self) -> bytes:
        """What was fed beyond the frame's end: the beginning of the next one."""

    def decompress(self, data: bytes, /) -> bytes:
        """Take the next compressed bytes; return what they decode to, perhaps b"". Raises the library's own error."""


def coding_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the one coding in a request's Content-Encoding, or None if there is none. Raises UnsupportedCoding."""
    named = [value.decode("latin-1") for name, value in headers if name == b"content-encoding"]
    if not named:
        return None
    words = [word.strip().lower().removeprefix("x-") for word in ",".join(named).split(",")]  # x-gzip is gzip
    codings = [word for word in words if word not in ("", "identity")]
    if len(codings) > 1:
        raise UnsupportedCoding(f"The request body is compressed {len(codings)} times; compress it once")
    if codings and codings[0] not in DECODERS:
        raise UnsupportedCoding(
            f"Content-Encoding {codings[0][:40]!r} is not taken; use one of {UnsupportedCoding.taken}"
        )
    return codings[0] if codings else None


class Decoding:
    """One body that is joined and decoded, to at most `most` bytes. The request's handler owns it. coding: None to join
    only; grown: bytes that the newest turn decoded; body: the result, None until it is complete. Only `bytes` objects
    are joined: for these CPython's `bytes.join` releases its lock, which 50 MiB would else hold for 50 ms."""

    def __init__(self, parts: list[bytes], coding: str | None, most: int) -> None:
        self._parts = parts
        self._coding = coding
        self._most = most
        self._bound = min(most, max(FREE_BYTES, MAX_EXPANSION * sum(map(len, parts))))
        self._pieces: Iterator[bytes] | None = None  # the decoder, once it has begun
        self._found: list[bytes] = []  # decoded pieces
        self._size = 0  # bytes in `_found`
        self.grown = 0
        self.body: bytes | None = None

    def advance(self) -> None:
        """Join all, or decode for a few ms, in the thread. Raises RequestTooLarge or InvalidRequest and frees all."""
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
        if refusal is not None:  # raised outside `except`, so that its context keeps no frame with the body
            self._drop()
            raise refusal
        self.grown = self._size - before
        if is_all:
            self.body = b"".join(self._found)
            self._drop()

    def _take_turn(self, pieces: Iterator[bytes], stop: int) -> bool:
        """Decode pieces until the size is `stop` bytes, or TURN_PIECES of them. Return whether the body is complete.
        stop: at most a byte beyond the bound, which is enough to refuse the body."""
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
        """Return the error for a body beyond its bound, which says which of the two bounds of `_bound` it was."""
        if self._bound < self._most:
            return RequestTooLarge(
                f"The decoded request body is more than {MAX_EXPANSION} times as large as what was sent"
            )
        return RequestTooLarge(
            f"The decoded request body is larger than {self._most} bytes, the most that is taken"
        )

    def _drop(self) -> None:
        """Free what came and what was decoded, at the end or before an error; `body` stays."""
        self._parts, self._found = [], []
        self._pieces = iter(())  # not None: that would begin again


# one decoder per coding: each yields the decoded body piece by piece


def framed_pieces(start: Callable[[], Decoder], coded: bytes) -> Iterator[bytes]:
    """Decode frames, one behind the other (gzip, zlib, zstd). start: makes a frame's decoder. Raises EOFError."""
    decoder, frames = start(), 1
    for at in range(0, len(coded), FEED_BYTES):
        fed = coded[at : at + FEED_BYTES]
        while fed:
            if decoder.eof:
                decoder, frames = start(), frames + 1
            if frames > MAX_FRAMES:
                raise EOFError(f"it has more than {MAX_FRAMES} parts")
            yield decoder.decompress(fed)
            fed = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        raise EOFError(ENDS_EARLY)


def deflate_pieces(coded: bytes) -> Iterator[bytes]:
    """Decode `deflate`: zlib's format (RFC 1950), or the raw one that some clients send; the first two bytes tell."""
    is_zlib = coded[:1] and coded[0] & 15 == zlib.DEFLATED and int.from_bytes(coded[:2], "big") % 31 == 0
    return framed_pieces(partial(zlib.decompressobj, zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS), coded)


def brotli_pieces(coded: bytes) -> Iterator[bytes]:
    """Decode brotli. `brotli.Decompressor` (1.2) keeps what is beyond PIECE_BYTES: it is asked until nothing comes."""
    decoder = brotli.Decompressor()
    for at in range(0, len(coded), FEED_BYTES):
        if decoder.is_finished():
            raise EOFError("something stands behind its end")
        piece = decoder.process(coded[at : at + FEED_BYTES], output_buffer_limit=PIECE_BYTES)
        yield piece
        while piece and not decoder.is_finished():  # these bytes may expand to more pieces
            piece = decoder.process(b"", output_buffer_limit=PIECE_BYTES)
            yield piece
    if not decoder.is_finished():
        raise EOFError(ENDS_EARLY)


def zstd_decoder() -> Decoder:
    """Return a decoder for one zstd frame, which refuses a frame whose window would take too much memory."""
    return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()


DECODERS: Final[Mapping[str, Callable[[bytes], Iterator[bytes]]]] = {
    "gzip": partial(framed_pieces, partial(zlib.decompressobj, zlib.MAX_WBITS | 16)),
    "deflate": deflate_pieces,
    "br": brotli_pieces,
    "zstd": partial(framed_pieces, zstd_decoder),
}
