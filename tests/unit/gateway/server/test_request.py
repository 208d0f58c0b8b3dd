"""A request's body is kept in few pieces, whatever the pieces in which it comes."""

import sys

from hypothesis import given
from hypothesis import strategies as some

from gateway.server.request import BLOCK_BYTES, SMALL_PIECE, BodyPieces


@given(some.lists(some.integers(0, 3 * SMALL_PIECE), max_size=40))
def test_a_body_is_what_came(sizes: list[int]) -> None:
    """In its order, and once."""
    body, pieces = BodyPieces(), [bytes([number]) * size for number, size in enumerate(sizes)]
    for piece in pieces:
        body.add(piece)
    parts = body.parts()
    assert b"".join(parts) == b"".join(pieces)
    assert {type(part) for part in parts} <= {bytes}  # of which a join lets go of Python's lock
    assert body.parts() == []


def test_two_bytes_at_a_time_take_no_more_memory_than_their_sum() -> None:
    """Each by itself would take twenty times as much."""
    body = BodyPieces()
    for _ in range(500_000):
        body.add(b"ab")
    assert sum(map(sys.getsizeof, body._pieces)) < 1_000_000 + 1_000_000 // BLOCK_BYTES * 100


def test_one_piece_is_not_copied() -> None:
    """As almost every request comes."""
    body, piece = BodyPieces(), b"x" * 100
    body.add(piece)
    assert body.parts() == [piece]
