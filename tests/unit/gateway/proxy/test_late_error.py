"""A worker's error as an event."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.api.routes import Dialect
from gateway.proxy.late_error import MAX_HELD_BYTES, LateError, event_of


@given(some.binary(max_size=300) | some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(
        some.sampled_from(["error", "message", "type", "detail"]), inner, max_size=3
    ),
).map(lambda value: json.dumps(value).encode()), some.sampled_from(Dialect), some.integers(400, 599))  # fmt: skip
def test_whatever_a_worker_says_is_one_event_with_an_error(
    body: bytes, dialect: Dialect, status: int
) -> None:
    """Clients raise at it: there is an object `error`, with words."""
    event = event_of(body, status, dialect)
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == (2 if dialect is Dialect.OPENAI else 3)
    told = json.loads(event.rpartition(b"data: ")[2])
    assert isinstance(told["error"], dict)
    assert (told.get("type") == "error") or dialect is not Dialect.ANTHROPIC


@pytest.mark.parametrize("status", [400, 500])
def test_an_error_without_words(status: int) -> None:
    """Says its status at least."""
    assert b"status %d" % status in event_of(b"", status, Dialect.OPENAI)


def test_an_endless_error_is_cut() -> None:
    """No more of it is held than is told."""
    told = LateError(500, Dialect.OPENAI)
    for _ in range(100):
        assert told.feed(b"x" * MAX_HELD_BYTES) == b""
    assert len(told.rest()) < 2000
