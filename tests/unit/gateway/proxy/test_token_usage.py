"""What a request used: the same count however a stream is cut, and nothing left of what only the gateway asked for."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.proxy.response_filter import DocumentFilter, Edits, ReasoningNames, StreamFilter
from gateway.proxy.token_usage import Meter, Tokens, tokens_in

DONE = (b"data: [DONE]",)
END = b"data: [DONE]\n\n"
REASONING = ReasoningNames.BOTH


def usage_of(prompt: int, completion: int, reasoning: int | None = None, **more: object) -> dict[str, object]:
    """As vLLM 0.32 writes it: with a reasoning parser, each has details."""
    usage: dict[str, object] = {
        "prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion,
    }  # fmt: skip
    details = {} if reasoning is None else {"completion_tokens_details": {"reasoning_tokens": reasoning}}
    return usage | more | details


def event(index: int, text: str, usage: object = None, name: str = "content", after: Any = None) -> bytes:
    """One chunk of a chat as vLLM writes it. after: members behind the usage."""
    body: dict[str, Any] = {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": index, "delta": {name: text}, "logprobs": None, "finish_reason": None}],
    }  # fmt: skip
    return event_of(body | ({} if usage is None else {"usage": usage}) | (after or {}))


def event_of(body: object) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def last(usage: object) -> bytes:
    return event_of({"id": "chatcmpl-1", "choices": [], "usage": usage})


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def relayed(reading: StreamFilter, parts: list[bytes]) -> bytes:
    """What the client gets of these chunks: with their frame where that is possible, as `Relay` does it."""
    sent = []
    for part in parts:
        whole = reading.pass_on(framed(part)) if part else b""
        if whole:
            size, _, rest = whole.partition(b"\r\n")
            assert int(size, 16) == len(rest) - 2
            sent.append(rest[:-2])
        else:
            sent.append(reading.feed(part))
    return b"".join([*sent, reading.rest()])


def cutting(n: int = 1, names: ReasoningNames = ReasoningNames.REASONING) -> StreamFilter:
    return StreamFilter(DONE, Edits(names, True, True, Meter(n)))


words = some.text(max_size=20) | some.sampled_from(
    [
        '"usage":{',
        ',"usage":{"prompt_tokens":1}}',
        "}}",
        '"choices":[{"index":0,',
        "\n\n",
        "\\",
        "data: [DONE]",
    ]
)
afters = some.none() | some.sampled_from([{"prompt_text": None}, {"metrics": {"x": {"y": 1}}}])
chunks = some.lists(some.tuples(words, some.sampled_from(["content", "reasoning"]), afters), max_size=6)


@given(chunks, some.lists(some.integers(0, 2500), max_size=8), some.integers(1, 3), some.booleans())
def test_only_the_usage_is_cut(chunks: list[Any], cuts: list[int], n: int, details: bool) -> None:
    """Whatever the texts, whatever stands behind the usage, however the stream is cut: the client gets the bytes that
    it would get without the gateway's wish, and the tokens so far are known within one chunk."""
    with_usage, without = [], []
    for number, (text, name, after) in enumerate(chunks):
        told = usage_of(7, number + 1, number if details else None)
        with_usage.append(event(number % n, text, told, name, after))
        without.append(event(number % n, text, None, name, after))
    stream = b"".join(with_usage)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    plain = StreamFilter(DONE, Edits(REASONING, True))
    wanted = relayed(plain, without)
    for parts in (with_usage, [stream[start:end] for start, end in pairwise(edges)]):
        reading = cutting(n, REASONING)
        assert relayed(reading, parts) == wanted
        newest = {number % n: number + 1 for number in range(len(chunks))}
        assert reading.tokens == ((7, sum(newest.values()), 0) if chunks else None)


def test_the_usage_at_the_end_counts() -> None:
    """It is the sum over all choices, and alone tells what came from a cache."""
    reading = cutting(2)
    chunks = [event(0, "a", usage_of(7, 1)), event(1, "b", usage_of(7, 2))]
    told = last(usage_of(7, 3, prompt_tokens_details={"cached_tokens": 4, "multimodal_tokens": {"image": 1}}))
    assert relayed(reading, [*chunks, told, END]) == event(0, "a") + event(1, "b") + END
    assert reading.tokens == (7, 3, 4)


def test_a_client_that_asked_for_usage_gets_it_once() -> None:
    """At the end, as it asked, and not with each chunk."""
    reading = StreamFilter(DONE, Edits(ReasoningNames.REASONING, False, True, Meter()))
    told = last(usage_of(7, 1))
    assert relayed(reading, [event(0, "a", usage_of(7, 1)), told, END]) == event(0, "a") + told + END


def test_a_client_that_asked_for_each_keeps_each() -> None:
    """Nothing is cut; all is counted."""
    reading = StreamFilter(DONE, Edits(meter=Meter()))
    chunks = [event(0, "a", usage_of(7, 1)), event(0, "b", usage_of(7, 2))]
    assert relayed(reading, chunks) == b"".join(chunks)
    assert reading.tokens == (7, 2, 0)


def test_several_prompts_have_a_choice_each() -> None:
    """A completion of several prompts numbers its choices through; each prompt counts once."""
    reading = cutting(n=2)
    for index, prompt in ((0, 5), (1, 5), (2, 6), (3, 6)):
        relayed(reading, [event(index, "x", usage_of(prompt, 1))])
    assert reading.tokens == (11, 4, 0)


@pytest.mark.parametrize(
    ("stream", "tokens"),
    [
        (
            b'event: message_start\ndata: {"message":{"usage":{"input_tokens":7,"output_tokens":0}}}\n\n',
            (7, 2, 0),
        ),
        (b'event: response.created\ndata: {"response":{"usage":null}}\n\n', (0, 2, 0)),
    ],
)
def test_events_are_counted_where_no_usage_comes_with_them(stream: bytes, tokens: Tokens) -> None:
    """Messages tell the prompt's tokens first, Responses nothing; each event that brings text is a token or more."""
    deltas = [b'event: content_block_delta\ndata: {"delta":{"text":"a"}}\n\n'] * 2
    for parts in ([stream, *deltas], [stream + b"".join(deltas)]):
        reading = StreamFilter(DONE, Edits(meter=Meter(1, b"content_block_delta\n")))
        assert relayed(reading, parts) == b"".join([stream, *deltas])
        assert reading.tokens == tokens


@pytest.mark.parametrize("usage", ["null", "{}", '{"input_tokens":9,"output_tokens":500}'])
def test_a_tool_is_no_usage(usage: str) -> None:
    """A Responses stream repeats the client's tools, whose schemas may have anything; the usage stands behind them."""
    tools = '"tools":[{"parameters":{"properties":{"usage":{"input_tokens":0,"output_tokens":1}}}}]'
    first = f'event: response.created\ndata: {{"response":{{{tools},"usage":null}}}}\n\n'.encode()
    end = f'event: response.completed\ndata: {{"response":{{{tools},"usage":{usage}}}}}\n\n'.encode()
    deltas = [b'event: response.output_text.delta\ndata: {"delta":"a"}\n\n'] * 500
    reading = StreamFilter((b"event: response.completed",), Edits(meter=Meter(1, b".delta\n")))
    relayed(reading, [first, *deltas])
    assert reading.tokens == (0, 500, 0)
    relayed(reading, [end])
    assert reading.tokens == ((9, 500, 0) if "500" in usage else (0, 500, 0))


def test_each_choice_is_cut_without_being_read() -> None:
    """The short way, which takes half a microsecond, is there for every choice, not for the first alone."""
    meter = Meter(12)
    for index in (0, 11, 1):
        assert meter.cut(event(index, "a", usage_of(7, index))) == event(index, "a")
    assert meter.tokens(False) == (7, 12, 0)


def test_a_message_counts_what_came_from_the_cache() -> None:
    """Anthropic's `input_tokens` leave it out; OpenAI's `prompt_tokens` do not."""
    usage = b'"usage":{"input_tokens":5,"output_tokens":6,"cache_creation_input_tokens":1,"cache_read_input_tokens":3}'
    assert tokens_in(usage) == (9, 6, 3)
    usage = b'{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":3},"output_tokens":6}}'
    assert tokens_in(usage) == (9, 6, 3)


@given(some.lists(some.integers(0, 9000), max_size=6), some.integers(0, 8000))
def test_the_usage_of_a_document_is_found_wherever_it_is(cuts: list[int], behind: int) -> None:
    """Also before the many token ids that a client may ask for, and when it comes in two pieces."""
    body = b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5},"prompt_token_ids":[%b1]}' % (
        b"1," * (behind // 2)
    )
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    reading = DocumentFilter(Edits(meter=Meter()))
    assert b"".join(reading.feed(body[start:end]) for start, end in pairwise(edges)) == body
    assert reading.tokens == (7, 5, 0)


@pytest.mark.parametrize("piece", [1000, 65536])
def test_an_event_too_long_to_be_held(piece: int) -> None:
    """Passes in pieces, and its usage is not missed, wherever it is cut."""
    told = b'"usage":{"input_tokens":7,"output_tokens":5}'
    for before in range((1 << 20) - 100, (1 << 20) + 100, 7):
        stream = b"event: x\ndata: {" + b"x" * before + told + b"}\n\n"
        reading = StreamFilter(DONE, Edits(meter=Meter()))
        parts = [stream[: 1 << 20], *(stream[at : at + piece] for at in range(1 << 20, len(stream), piece))]
        assert b"".join([*map(reading.feed, parts), reading.rest()]) == stream
        assert reading.tokens == (7, 5, 0)
