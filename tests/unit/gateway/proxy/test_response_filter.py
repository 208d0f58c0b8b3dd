"""What is read from an answer and changed in it: whatever its pieces, the same bytes come out but for the edits."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.proxy.response_filter import (
    MAX_HELD_BYTES,
    DocumentFilter,
    Edits,
    PassThrough,
    ReasoningNames,
    StreamFilter,
    tokens_in,
)
from gateway.proxy.token_usage import Meter

BOTH, PLAIN = Edits(ReasoningNames.BOTH), Edits()
DONE = (b"data: [DONE]",)

# What is most like the key, and what a search for it could trip over.
tricky = some.sampled_from(
    ['"reasoning":', '\\"reasoning":"x"', "reasoning", '"reasoning_content":', '":', "\\", '"', "\n\n"]
)
texts = some.lists(tricky | some.text(max_size=8), max_size=5).map("".join)
calls = some.just([{"arguments": '{"reasoning": "x"}'}])
messages = some.fixed_dictionaries(
    {"content": some.none() | texts},
    optional={"reasoning": some.none() | texts, "refusal": some.none(), "tool_calls": calls},
)
answers = some.fixed_dictionaries(
    {"choices": some.lists(some.fixed_dictionaries({"delta": messages}), max_size=3)}
)
separators = some.sampled_from([(",", ":"), (", ", ": ")])


def named_twice(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer as it must become."""
    deltas = [choice["delta"] for choice in answer["choices"]]
    more = [{"reasoning_content": delta["reasoning"]} if "reasoning" in delta else {} for delta in deltas]
    return {"choices": [{"delta": delta | extra} for delta, extra in zip(deltas, more, strict=True)]}


@given(answers, separators, some.booleans())
def test_only_the_second_name_is_added(
    answer: dict[str, Any], separators: tuple[str, str], ascii_only: bool
) -> None:
    """Compact or not, escaped or not: the JSON is the same, with each `reasoning` once more."""
    body = json.dumps(answer, separators=separators, ensure_ascii=ascii_only).encode()
    assert json.loads(BOTH.apply(body)) == named_twice(answer)


@given(answers)
def test_all_other_bytes_stay(answer: dict[str, Any]) -> None:
    """Without the inserted field the bytes are those of before."""
    body = json.dumps(answer).encode()
    added = BOTH.apply(body)
    for choice in answer["choices"]:
        if "reasoning" in choice["delta"]:
            text = json.dumps(choice["delta"]["reasoning"]).encode()
            added = added.replace(b',"reasoning_content": ' + text, b"", 1)
    assert added == body


@given(answers, some.lists(some.integers(0, 400), max_size=8), some.booleans())
def test_pieces_make_no_difference(answer: dict[str, Any], cuts: list[int], whole: bool) -> None:
    """Wherever a stream is cut, the same bytes come out, none before its event is whole, and its end is seen."""
    stream = b"".join(b"data: %b\n\n" % json.dumps(answer).encode() for _ in range(2))
    stream += b"data: [DONE]\n\n" if whole else b""
    reading, edges = StreamFilter(DONE, BOTH), [0, *sorted(cuts), len(stream)]
    fed = [reading.feed(stream[start:end]) for start, end in pairwise(edges)]
    assert all(piece == b"" or piece.endswith(b"\n\n") for piece in fed)
    assert b"".join(fed) + reading.rest() == BOTH.apply(stream)
    assert reading.whole is whole


def test_one_name_in_place_of_the_other() -> None:
    """An alias may want the former name alone."""
    body = b'{"delta":{"reasoning":"a \\"b\\""}}'
    assert (
        Edits(ReasoningNames.REASONING_CONTENT).apply(body) == b'{"delta":{"reasoning_content":"a \\"b\\""}}'
    )


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"a":1,"reasoning":"x, \\"y\\"","b":2}', b'{"a":1,"b":2}'),
        (b'{"reasoning":null,"b":2}', b'{"b":2}'),
        (b'{"a":1,"reasoning":"x"}', b'{"a":1}'),
        (b'{"reasoning":"x"}', b"{}"),
    ],
)
def test_no_reasoning_at_all(body: bytes, left: bytes) -> None:
    """An alias may leave it out; what remains is JSON."""
    assert Edits(ReasoningNames.NONE).apply(body) == left


BOTH_SENT = [
    b'"reasoning":"a \\"b\\"","reasoning_content":"a \\"b\\""',
    b'"reasoning_content" : "a", "reasoning" : "a"',
]


@pytest.mark.parametrize("sent", BOTH_SENT)
@pytest.mark.parametrize("form", ["{%b}", '{%b,"b":2}', '{"a":1,%b}', '{"a":1, %b ,"b":2}'])
@pytest.mark.parametrize("names", ReasoningNames)
@pytest.mark.parametrize("whole", [False, True])
def test_a_worker_that_sends_both_names(
    sent: bytes, form: str, names: ReasoningNames, *, whole: bool
) -> None:
    """Only the names that are wanted reach the client, in a stream and in a document; all else stays."""
    body = form.encode() % sent
    wanted = {
        ReasoningNames.BOTH: {"reasoning", "reasoning_content"},
        ReasoningNames.REASONING: {"reasoning", "reasoning_content"},  # it is never changed
        ReasoningNames.REASONING_CONTENT: {"reasoning_content"},
        ReasoningNames.NONE: set(),
    }[names]
    if whole:
        document = DocumentFilter(Edits(names))
        told = document.feed(body) + document.rest()
    else:
        stream, event = StreamFilter(DONE, Edits(names)), b"data: " + body + b"\n\n"
        framed = b"%x\r\n%b\r\n" % (len(event), event)
        told = (event if stream.pass_on(framed) else stream.feed(event))[6:]
    expected = {name: value for name, value in json.loads(body).items() if name in {"a", "b"} | wanted}
    assert json.loads(told) == expected


@pytest.mark.parametrize("name", [b"reasoning", b"reasoning_content"])
def test_no_reasoning_passes_where_the_usage_is_cut(name: bytes) -> None:
    """Of a request whose usage is counted in each chunk, too."""
    stream = StreamFilter(DONE, Edits(ReasoningNames.NONE, cut_usage=True, meter=Meter()))
    event = (
        b'data: {"choices":[{"delta":{"%b":"a","content":"b"}}],'
        b'"usage":{"prompt_tokens":3,"total_tokens":4,"completion_tokens":1}}\n\n'
    ) % name
    framed = b"%x\r\n%b\r\n" % (len(event), event)
    told = stream.pass_on(framed) or stream.feed(event)
    assert b"reasoning" not in told
    assert b'"content":"b"' in told


@pytest.mark.parametrize("sent", [b'{"reasoning_content":"a"}', b'{"x":1, "reasoning_content" : null}'])
def test_a_former_name_alone_is_reasoning_too(sent: bytes) -> None:
    """A worker may be older: whoever wants none gets none, and whoever wants some gets what there is."""
    stream = StreamFilter(DONE, Edits(ReasoningNames.NONE))
    event = b"data: " + sent + b"\n\n"
    assert stream.pass_on(b"%x\r\n%b\r\n" % (len(event), event)) == b""
    assert b"reasoning" not in stream.feed(event)
    for names in (ReasoningNames.BOTH, ReasoningNames.REASONING_CONTENT):
        assert Edits(names).apply(sent) == sent


def test_a_former_name_that_is_there_stays_alone() -> None:
    """A worker that writes both itself is not corrected."""
    body = b'{"reasoning":"a","reasoning_content":"a"}'
    assert BOTH.apply(body) == body


@pytest.mark.parametrize("edits", [BOTH, PLAIN, Edits(hide_usage=True)])
def test_an_endless_event_is_not_kept(edits: Edits) -> None:
    """A stream that is no events passes, and memory stays bounded."""
    reading = StreamFilter(DONE, edits)
    passed = sum(len(reading.feed(b"x" * 65536)) for _ in range(64))
    assert passed >= 64 * 65536 - MAX_HELD_BYTES


DETAILS = b'"prompt_tokens_details":{"cached_tokens":1}'
USAGE = b'"usage":{"prompt_tokens":3,"total_tokens":7,"completion_tokens":4,%b}' % DETAILS
LAST = b'data: {"id":"1","object":"chat.completion.chunk","choices":[],%b}\n\n' % USAGE
EVENT = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"\\"usage\\":{ \\"choices\\":[]"}}]}\n\n'
END = b"data: [DONE]\n\n"


@given(some.lists(some.integers(0, 600), max_size=6))
def test_the_usage_that_was_asked_for_is_read_and_hidden(cuts: list[int]) -> None:
    """The event that nobody but the gateway asked for is taken out, in whatever pieces it comes."""
    reading, stream = StreamFilter(DONE, Edits(hide_usage=True)), EVENT + LAST + END
    edges = [0, *sorted(cuts), len(stream)]
    fed = [reading.feed(stream[start:end]) for start, end in pairwise(edges)]
    assert b"".join(fed) + reading.rest() == EVENT + END
    assert (reading.tokens, reading.whole) == ((3, 4, 1), True)


def test_the_usage_of_a_client_that_asked_stays() -> None:
    """It is read, and passes."""
    reading = StreamFilter(DONE, PLAIN)
    assert reading.feed(EVENT + LAST + END) == EVENT + LAST + END
    assert reading.tokens == (3, 4, 1)


@pytest.mark.parametrize(
    ("framed", "passes"),
    [
        (b"5e\r\n" + EVENT.replace(b"usage", b"use") + b"\r\n", True),
        (b"5e\r\n" + LAST + b"\r\n", False),
        (b"e\r\n" + END + b"\r\n", False),
        (b'5e\r\ndata: {"reasoning":"x"}\n\n\r\n', False),
        (b"5\r\ndata:\r\n", False),
    ],
)
def test_what_passes_with_its_frame(framed: bytes, passes: bool) -> None:
    """Whole events in which there is nothing to read or to change, and nothing is held before them."""
    reading = StreamFilter(DONE, BOTH)
    assert bool(reading.pass_on(framed)) is passes
    reading.feed(b"data: half")
    assert reading.pass_on(framed) == b""


@pytest.mark.parametrize(
    ("ends", "stream", "whole"),
    [
        (DONE, b"data: [DONE]\n\n", True),
        (DONE, b"data: [DONE]\r\n\r\n", True),
        (DONE, b'{"x":1}\n\ndata: [DONE]', True),
        (DONE, b'data: {"text":"data: [DONE]"}\n\n', False),
        (DONE, b"data: [DON", False),
        (DONE, b"", False),
        ((b"event: message_stop",), b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
        ((b"event: message_stop",), b"event: message_start\ndata: {}\n\n", False),
    ],
)
def test_a_stream_is_whole_with_its_last_event(ends: tuple[bytes, ...], stream: bytes, whole: bool) -> None:
    """The event, not its words in a text; also when it comes a byte at a time."""
    at_once, by_bytes = StreamFilter(ends, PLAIN), StreamFilter(ends, PLAIN)
    at_once.feed(stream)
    for byte in stream:
        by_bytes.feed(bytes([byte]))
    assert (at_once.whole, by_bytes.whole) == (whole, whole)


@pytest.mark.parametrize(
    ("data", "between"),
    [
        (b"", True),
        (b"data: {}\n\n", True),
        (b"data: {}\r\n\r\n", True),
        (b"data: {}\n", False),
        (b"data: {", False),
    ],
)
def test_an_error_event_follows_whole_events_only(data: bytes, between: bool) -> None:
    """Behind an event cut in the middle an error event could not be read as one: the abort alone tells."""
    reading = StreamFilter(DONE, PLAIN)
    reading.feed(data)
    assert reading.between_events is between


@given(answers, some.lists(some.integers(0, 400), max_size=4))
def test_a_document_is_held_until_it_can_be_changed(answer: dict[str, Any], cuts: list[int]) -> None:
    """One that is changed goes out whole at its end; one that is not goes out as it comes."""
    body = json.dumps(answer).encode()
    edges = [0, *sorted(cuts), len(body)]
    changed, passing = DocumentFilter(BOTH), DocumentFilter(PLAIN)
    assert [changed.feed(body[start:end]) for start, end in pairwise(edges)] == [b""] * (len(edges) - 1)
    assert changed.rest() == BOTH.apply(body)
    assert [passing.feed(body[start:end]) for start, end in pairwise(edges)] == [
        body[start:end] for start, end in pairwise(edges)
    ]


def test_a_document_too_long_to_be_held_passes() -> None:
    """Memory stays bounded; the former name is then missing."""
    document = DocumentFilter(BOTH)
    passed = sum(len(document.feed(b"x" * 65536)) for _ in range(64))
    assert (passed, document.rest()) == (64 * 65536, b"")


@given(some.binary(max_size=300))
def test_no_bytes_break_the_count(data: bytes) -> None:
    """Anything at all has tokens or none."""
    assert tokens_in(data + b'"usage":{' + data) in (None, tokens_in(data))


def test_other_names_of_the_same_count() -> None:
    """Anthropic's and OpenAI's newer API tell input and output; embeddings have no output."""
    assert tokens_in(b'{"usage":{"input_tokens":5,"output_tokens":6}}') == (5, 6, 0)
    assert tokens_in(b'{"usage":{"prompt_tokens":5,"total_tokens":5}}') == (5, 0, 0)
    assert tokens_in(b'{"usage":{"prompt_tokens":"x"}}') is None


def test_an_error_is_not_read() -> None:
    """Its bytes pass, with their frame or without."""
    assert (PassThrough().pass_on(b"x"), PassThrough().feed(b"x"), PassThrough().rest()) == (b"x", b"x", b"")
