"""Frames of a body: whatever the pieces, the same payload and the same end; and what is no frame is refused."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.http.framing import BadFraming, Chunked, Sized, UntilClose

payloads = some.lists(some.binary(min_size=1, max_size=40), max_size=6)
cuts = some.lists(some.integers(0, 400), max_size=12)


def framed(payload: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in payload)
    return chunks + b"0\r\n" + trailer + b"\r\n"


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in pairwise([0, *sorted(at), len(data)])]


@given(
    payloads, cuts, some.sampled_from([b"", b";a=b", b";x"]), some.sampled_from([b"", b"x: 1\r\ny: 2\r\n"])
)
def test_chunks_in_any_pieces(payload: list[bytes], at: list[int], extension: bytes, trailer: bytes) -> None:
    """The payload comes out, the end is seen at the last byte and not before."""
    body, chunks = framed(payload, extension, trailer), Chunked()
    fed = [chunks.feed(piece) for piece in pieces(body[:-1], at)]
    assert not chunks.complete
    fed.append(chunks.feed(body[-1:]))
    assert b"".join(fed) == b"".join(payload)
    assert (chunks.complete, chunks.surplus) == (True, 0)


@given(payloads, some.binary(min_size=1, max_size=20))
def test_bytes_behind_the_end_are_noticed(payload: list[bytes], more: bytes) -> None:
    """They are no payload."""
    chunks = Chunked()
    assert chunks.feed(framed(payload) + more) == b"".join(payload)
    assert (chunks.complete, chunks.surplus) == (True, len(more))


@given(some.binary(min_size=1, max_size=300))
def test_a_chunk_alone_is_known_as_one(data: bytes) -> None:
    """Exactly one, no more and no less, and only where a chunk may begin."""
    chunk = b"%x\r\n%b\r\n" % (len(data), data)
    assert Chunked().is_one_chunk(chunk)
    assert not any(
        Chunked().is_one_chunk(other) for other in (chunk[:-1], chunk + b"0", chunk * 2, chunk[1:] + b"x")
    )
    begun = Chunked()
    begun.feed(chunk[:3])
    assert not begun.is_one_chunk(chunk)


@given(some.binary(max_size=60))
def test_what_is_taken_for_a_chunk_is_one(data: bytes) -> None:
    """Whatever passes at a look, the decoder takes for the same chunk."""
    if Chunked().is_one_chunk(data):
        chunks = Chunked()
        assert chunks.feed(data) == data[data.index(b"\r\n") + 2 : -2]
        assert chunks.between


@pytest.mark.parametrize(
    "data",
    [
        b"0\r\n\r\n",
        b"+5\r\nabcde\r\n",
        b"0x5\r\nabcde\r\n",
        b" 5\r\nabcde\r\n",
        b"5;x\r\nabcde\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_is_not_passed_at_a_look(data: bytes) -> None:
    """The last chunk, sizes that are none, extensions."""
    assert not Chunked().is_one_chunk(data)


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"-5\r\n",
        b"5\r\nabcdeXX",
        b"5 5\r\n",
        b"\r\n",
        b"f" * 17 + b"\r\n",
        b"1" * 5000,
        b"5 \r\nabcde\r\n",
        b"5 ;a=b\r\nabcde\r\n",
        b"5;a=\x00\r\nabcde\r\n",
        b"5;" + b"a" * 5000 + b"\r\n",
        b"0\r\n" + b"a" * 5000,
        b"0\r\nno field\r\n\r\n",
        b"0\r\n folded: 1\r\n\r\n",
        b"0\r\na : 1\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * 65,
        b"0\r\n" + b"a: %b\r\n" % (b"b" * 4000) * 5,
        b"1;%b\r\na\r\n" % (b"b" * 4000) * 20,
    ],
)
def test_what_is_no_frame(data: bytes) -> None:
    """It ends what it is the body of, however it is cut."""
    with pytest.raises(BadFraming):
        Chunked().feed(data)
    with pytest.raises(BadFraming):
        feed_by_bytes(data)


def feed_by_bytes(data: bytes) -> None:
    chunks = Chunked()
    for at in range(len(data)):
        chunks.feed(data[at : at + 1])


@pytest.mark.parametrize("data", [b"5\n", b"x", b"5;a\n", b"1\r\naX", b"0\r\na b", b"0\r\n:"])
def test_what_cannot_become_a_frame_is_not_waited_for(data: bytes) -> None:
    """A line that nothing can make right is refused before its end has come."""
    with pytest.raises(BadFraming):
        Chunked().feed(data)


def test_a_refusal_tells_what_came_before_it() -> None:
    """So that a body beyond its limit is that, wherever the bytes were cut."""
    with pytest.raises(BadFraming) as refusal:
        Chunked().feed(b"5\r\nabcde\r\n3\r\nabc\r\nx\r\n")
    assert refusal.value.before == 8


@given(some.binary(min_size=1, max_size=200), cuts)
def test_a_length_in_any_pieces(data: bytes, at: list[int]) -> None:
    """Complete with the last byte; more is noticed and dropped."""
    body = Sized(len(data))
    assert b"".join(body.feed(piece) for piece in pieces(data, at)) == data
    assert (body.complete, body.surplus) == (True, 0)
    more = Sized(len(data))
    assert more.feed(data + b"x") == data
    assert (more.complete, more.surplus) == (True, 1)


def test_no_body_is_complete_at_once() -> None:
    """A length of 0 needs no byte."""
    assert Sized(0).complete


def test_a_body_may_end_with_its_connection() -> None:
    """Nothing else ends it."""
    body = UntilClose()
    assert (body.feed(b"x"), body.complete, body.ends_with_connection()) == (b"x", False, True)
