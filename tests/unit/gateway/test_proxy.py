"""The pure parts of the hot path: which model a body names, when a stream is whole, how a cut event is closed."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.errors import InvalidRequest
from gateway.proxy import Call, at_event_end, is_truncated, model_of

anything = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
)


@given(some.dictionaries(some.text(max_size=5), anything), some.text(min_size=1))
def test_the_model_is_found_in_any_object(rest: dict[str, object], model: str) -> None:
    """Whatever else a body holds, its model is the one it names."""
    assert model_of(json.dumps(rest | {"model": model}).encode()) == model


@given(some.binary(max_size=200))
def test_no_bytes_break_the_parser(body: bytes) -> None:
    """Any bytes at all are a model or a refusal, never another error."""
    with suppress(InvalidRequest):
        assert model_of(body)


@pytest.mark.parametrize(
    ("tail", "truncated"),
    [
        (b"data: [DONE]\n\n", False),
        (b"data: [DONE]\r\n\r\n", False),
        (b'{"x":1}\n\ndata: [DONE]', False),
        (b'{"text":"[DONE]"}\n\n', True),
        (b"data: [DON", True),
        (b"", True),
    ],
)
def test_a_stream_is_whole_with_its_last_event(tail: bytes, truncated: bool) -> None:
    """A stream ends with the event [DONE], not with the word in a text; other answers end with their body."""
    call = Call("chat_completions", b"id", 0.0, status=200, stream=True, tail=tail)
    assert is_truncated(call) is truncated
    call.stream = False
    assert is_truncated(call) is False


@pytest.mark.parametrize(
    ("tail", "ended"),
    [
        (b"", True),
        (b"data: {}\n\n", True),
        (b"data: {}\r\n\r\n", True),
        (b"data: {}\n", False),
        (b"data: {", False),
    ],
)
def test_an_error_event_follows_whole_events_only(tail: bytes, ended: bool) -> None:
    """Behind an event cut in the middle an error event could not be read as one: the abort alone tells."""
    assert at_event_end(tail) is ended
