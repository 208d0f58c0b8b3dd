"""Bodies that come compressed: which codings are taken, and what is in them. Pure, and slow: not for the event loop.

A few bytes can hold gigabytes: what comes out is bounded by the size that a body may have, and by how many times the
size of what came in it is. Compressed bytes are fed a few at a time, of which even zstd makes no more than 8 MiB.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, Protocol

import brotli
import zstandard

from gateway.errors import InvalidRequest, RequestTooLarge, UnsupportedCoding

MOST_TIMES: Final = 200  # the size of what came; text that repeats itself a lot reaches a hundred
FREE_BYTES: Final = 1 << 20  # which any body may have, however small it came
MOST_FRAMES: Final = 1000  # one behind the other
FED_BYTES: Final = 256  # at a time
MOST_WINDOW_BYTES: Final = 8 << 20  # of zstd: what RFC 9659 allows on the web
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


def decoded(body: bytes, coding: str, most: int) -> bytes:
    """What is in a compressed body. Raises RequestTooLarge beyond `most` bytes, or InvalidRequest."""
    bound = min(most, max(FREE_BYTES, MOST_TIMES * len(body)))
    try:
        found = DECODERS[coding](body, bound)
    except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as error:
        raise InvalidRequest(f"The request body is not valid {coding}: {error}") from error
    if len(found) <= bound:
        return found
    if bound < most:
        raise RequestTooLarge(
            f"The decoded request body is more than {MOST_TIMES} times as large as what was sent"
        )
    raise RequestTooLarge(f"The decoded request body is larger than {most} bytes, the most that is taken")


def framed(start: Callable[[], Decoder], body: bytes, most: int) -> bytes:
    """What is in a format of frames, of which several may stand one behind the other. What is more than `most` is cut
    off somewhere behind it."""
    decoder, frames, size, parts = start(), 1, 0, []
    for at in range(0, len(body), FED_BYTES):
        fed = body[at : at + FED_BYTES]
        while fed and size <= most:
            if decoder.eof:
                decoder, frames = start(), frames + 1
            if frames > MOST_FRAMES:
                raise EOFError(f"it has more than {MOST_FRAMES} parts")
            parts.append(decoder.decompress(fed))
            size += len(parts[-1])
            fed = decoder.unused_data if decoder.eof else b""
        if size > most:
            break
    if size <= most and not decoder.eof:
        raise EOFError(ENDS_EARLY)
    return b"".join(parts)


def inflated(body: bytes, most: int) -> bytes:
    """`deflate` means zlib's format; some clients send what is inside of it alone."""
    try:
        return framed(partial(zlib.decompressobj, zlib.MAX_WBITS), body, most)
    except zlib.error:
        return framed(partial(zlib.decompressobj, -zlib.MAX_WBITS), body, most)


def unbrotlied(body: bytes, most: int) -> bytes:
    decoder, size, parts = brotli.Decompressor(), 0, [b""]
    fed = body
    while not decoder.is_finished() and size <= most:
        parts.append(decoder.process(fed, output_buffer_limit=most + 1 - size))
        if not parts[-1] and not decoder.is_finished():
            raise EOFError(ENDS_EARLY)
        size, fed = size + len(parts[-1]), b""
    return b"".join(parts)


def zstd_decoder() -> Decoder:
    return zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES).decompressobj()


DECODERS: Final[Mapping[str, Callable[[bytes, int], bytes]]] = {
    "gzip": partial(framed, partial(zlib.decompressobj, zlib.MAX_WBITS | 16)),
    "deflate": inflated,
    "br": unbrotlied,
    "zstd": partial(framed, zstd_decoder),
}
