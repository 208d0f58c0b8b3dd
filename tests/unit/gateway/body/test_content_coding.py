"""Compressed bodies: what is in them, what is refused, and that a bomb never comes to more than its bound."""

import gzip
import os
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as some

from gateway.api.errors import InvalidRequest, RequestTooLarge, UnsupportedCoding
from gateway.body.content_coding import DECODERS, FREE_BYTES, MAX_EXPANSION, MAX_FRAMES, Decoding, coding_of
from tests.reading import decoded

MIB = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


def zstd_of_unknown_size(data: bytes) -> bytes:
    encoder = zstandard.ZstdCompressor().compressobj()
    return encoder.compress(data) + encoder.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "brotli": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.compress),
    "zstd of unknown size": ("zstd", zstd_of_unknown_size),
}
every = pytest.mark.parametrize("name", ENCODERS)


@given(some.binary(max_size=2000), some.integers(1, 400))
@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_in_it_comes_out(name: str, data: bytes, times: int) -> None:
    """Every coding gives back what was compressed."""
    coding, encode = ENCODERS[name]
    assert decoded(encode(data * times), coding, MIB) == data * times


@every
def test_a_bomb_is_bounded(name: str) -> None:
    """Zeros without end are refused, and no more is made of them than the bound and little more."""
    coding, encode = ENCODERS[name]
    bomb = encode(b"0" * 64 * MIB)
    tracemalloc.start()
    with pytest.raises(RequestTooLarge):
        decoded(bomb, coding, 4 * MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * MIB


@every
@pytest.mark.parametrize("cut", [0, 5])
def test_a_refusal_keeps_nothing_of_a_body(name: str, cut: int) -> None:
    """Whoever holds the error, or what was decoded, holds none of its bytes."""
    coding, encode = ENCODERS[name]
    coded = encode(os.urandom(MIB // 16).hex().encode() * 32)
    decoding = Decoding([coded[: len(coded) - cut]], coding, 50 * MIB if cut else 3 * MIB)
    tracemalloc.start()
    with pytest.raises((InvalidRequest, RequestTooLarge)) as refusal:  # noqa: PT012
        while decoding.body is None:
            decoding.advance()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < MIB
    assert refusal.value.__context__ is None


def test_a_body_without_a_coding_is_put_together() -> None:
    """In one turn, and nothing is added to what was counted when it came."""
    parts = [bytes([number]) * MIB for number in range(8)]
    decoding = Decoding(list(parts), None, MIB)
    decoding.advance()
    assert decoding.body == b"".join(parts)
    assert decoding.grown == 0


@every
def test_the_ratio_is_bounded(name: str) -> None:
    """A few kilobytes do not become as many megabytes as a body may have."""
    coding, encode = ENCODERS[name]
    bomb = encode(b"0" * 40 * MIB)
    assert max(FREE_BYTES, MAX_EXPANSION * len(bomb)) < 40 * MIB
    with pytest.raises(RequestTooLarge, match="times"):
        decoded(bomb, coding, 50 * MIB)


@every
def test_what_is_cut_off_or_followed_by_something_is_refused(name: str) -> None:
    """The whole, and nothing but it."""
    coding, encode = ENCODERS[name]
    whole = encode(bytes(range(256)) * 10)
    for wrong in (whole[:-1], whole[:-5], whole + b"garbage"):
        with pytest.raises(InvalidRequest, match="not valid"):
            decoded(wrong, coding, MIB)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_several_frames_are_one_body(name: str) -> None:
    """Both formats allow it, and a bound keeps it from being work without end."""
    coding, encode = ENCODERS[name]
    assert decoded(encode(b"one ") + encode(b"two"), coding, MIB) == b"one two"
    with pytest.raises(InvalidRequest, match="parts"):
        decoded(encode(b"") * (MAX_FRAMES + 1), coding, MIB)


def test_a_window_beyond_the_webs_is_refused() -> None:
    """A zstd frame may ask its reader for gigabytes of memory."""
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    encoder = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    with pytest.raises(InvalidRequest, match="memory"):
        decoded(encoder.compress(b"{}" * 1000) + encoder.flush(), "zstd", MIB)


@given(some.sampled_from(sorted(DECODERS)), some.binary(max_size=300))
def test_no_bytes_break_a_decoder(coding: str, body: bytes) -> None:
    """Any bytes at all are a body or a refusal."""
    with suppress(InvalidRequest):
        decoded(body, coding, MIB)


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ([], None),
        ([b"identity"], None),
        ([b""], None),
        ([b"gzip"], "gzip"),
        ([b" X-GZIP "], "gzip"),
        ([b"identity, zstd"], "zstd"),
        ([b"Br"], "br"),
    ],
)
def test_the_coding_of_a_head(values: list[bytes], coding: str | None) -> None:
    """Names have no case, and `identity` is none."""
    assert coding_of([(b"content-encoding", value) for value in values]) == coding


@pytest.mark.parametrize("values", [[b"snappy"], [b"gzip, gzip"], [b"gzip", b"br"], [b"compress"]])
def test_a_coding_that_is_not_taken(values: list[bytes]) -> None:
    """Unknown ones and several on top of each other: 415, with what is taken."""
    with pytest.raises(UnsupportedCoding) as refusal:
        coding_of([(b"content-encoding", value) for value in values])
    assert refusal.value.status == 415
    assert (b"accept-encoding", ", ".join(DECODERS).encode()) in refusal.value.headers()
