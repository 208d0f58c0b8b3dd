"""Heads that two parsers could read differently, or that are too large, are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.guard import MOST_HEAD_BYTES, MOST_HEADERS, problem

HOST = (b"host", b"gateway:8000")


@pytest.mark.parametrize(
    ("version", "fields", "status"),
    [
        ("1.1", [HOST], None),
        ("1.0", [], None),
        ("1.1", [(b"host", b"[::1]:8000")], None),
        ("1.1", [HOST, (b"transfer-encoding", b"Chunked")], None),
        ("1.1", [], 400),
        ("1.1", [HOST, HOST], 400),
        ("1.1", [(b"host", b"a/x?")], 400),
        ("1.1", [(b"host", b"a b")], 400),
        ("1.1", [(b"host", b"")], 400),
        ("1.0", [(b"transfer-encoding", b"chunked")], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"chunked"), (b"content-length", b"3")], 400),
        ("1.1", [HOST, (b"content-length", b"3"), (b"content-length", b"3")], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], 400),
        ("1.1", [HOST, *[(b"x", b"")] * MOST_HEADERS], 431),
        ("1.1", [HOST, (b"x", b"y" * MOST_HEAD_BYTES)], 431),
    ],
)
def test_heads(version: str, fields: list[tuple[bytes, bytes]], status: int | None) -> None:
    """Each refusal has the status for its kind."""
    found = problem(b"/v1/models", version, fields)
    assert (found and found.status) == status


@given(
    some.binary(max_size=30),
    some.lists(some.tuples(some.binary(max_size=12), some.binary(max_size=12)), max_size=70),
)
def test_no_head_breaks_the_guard(target: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    """Any bytes at all pass or are refused as the client's fault."""
    found = problem(target, "1.1", fields)
    assert found is None or 400 <= found.status < 500
