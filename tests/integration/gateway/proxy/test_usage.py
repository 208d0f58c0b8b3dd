"""Streams are asked for their tokens: the log knows them, and only who asked for them sees them."""

from __future__ import annotations

import json

import pytest

from tests.fake_worker import DONE, FakeWorker, event
from tests.integration.gateway.harness import CHAT, COMPLETIONS, Gateway

DETAILS = '"prompt_tokens_details":{"cached_tokens":4}'
TOKENS = '"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5,' + DETAILS + "}"
USAGE = 'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],' + TOKENS + "}\n\n"
LAST = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
QUOTED = 'data: {"choices":[{"index":0,"delta":{"content":"\\"choices\\":[],\\"usage\\":{1}"}}]}\n\n'
EVENTS = [event(0).decode(), event(1).decode(), QUOTED, LAST]
ASKED = {"include_usage": True}


def stream(pieces: list[str], **fields: object) -> bytes:
    """A request for a stream that the worker makes of `pieces`, in spacing of its own."""
    body = {
        "model": "alpha",
        "prompt": "",
        "script": {"do": "pieces", "pieces": pieces},
        "stream": True,
        **fields,
    }
    return json.dumps(body, indent=1).encode()


def in_pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_who_did_not_ask_sees_no_usage(gateway: Gateway, worker: FakeWorker, path: str) -> None:
    """The worker was asked in the client's place; the log has what it told, and all other bytes are the worker's."""
    request = stream([*EVENTS, USAGE, DONE.decode()])
    answer = gateway.http.post(path, content=request)
    seen = worker.next().body
    assert json.loads(seen) == json.loads(request) | {"stream_options": ASKED}
    assert seen.endswith(request[1:])
    assert answer.content == "".join(EVENTS).encode() + DONE
    line = gateway.logged(answer)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (7, 5)


@pytest.mark.parametrize("size", [3, 100, 100_000])
def test_however_the_stream_is_cut(gateway: Gateway, worker: FakeWorker, size: int) -> None:
    """Events in pieces, or many in one, make no difference."""
    whole = "".join([*EVENTS[1:], USAGE, DONE.decode()])
    answer = gateway.http.post(CHAT, content=stream(in_pieces(whole, size)))
    assert answer.content == "".join(EVENTS[1:]).encode() + DONE
    assert gateway.logged(answer)["completion_tokens"] == 5


def test_who_asked_sees_it(gateway: Gateway, worker: FakeWorker) -> None:
    """Request and answer are as they were."""
    request = stream([*EVENTS, USAGE, DONE.decode()], stream_options=ASKED)
    answer = gateway.http.post(CHAT, content=request)
    assert worker.next().body == request
    assert answer.content == "".join([*EVENTS, USAGE]).encode() + DONE
    assert gateway.logged(answer)["prompt_tokens"] == 7


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
def test_who_declined_does_not_see_it(gateway: Gateway, worker: FakeWorker, options: object) -> None:
    """Options that do not ask count as none."""
    answer = gateway.http.post(CHAT, content=stream([USAGE, DONE.decode()], stream_options=options))
    assert json.loads(worker.next().body)["stream_options"] == ASKED
    assert answer.content == DONE
    assert gateway.logged(answer)["prompt_tokens"] == 7


def test_options_that_are_wrong(gateway: Gateway, worker: FakeWorker) -> None:
    """Go to the worker, whose business they are."""
    request = stream([DONE.decode()], stream_options="yes")
    gateway.http.post(CHAT, content=request)
    assert worker.next().body == request


def test_usage_along_with_text_stays(gateway: Gateway, worker: FakeWorker) -> None:
    """Only the event that holds nothing else is the gateway's own wish."""
    both = 'data: {"choices":[{"index":0,"delta":{"content":"x"}}],' + TOKENS + "}\n\n"
    answer = gateway.http.post(CHAT, content=stream([both, DONE.decode()]))
    assert answer.content == both.encode() + DONE
    assert gateway.logged(answer)["completion_tokens"] == 5


def test_answers_that_are_no_streams(gateway: Gateway, worker: FakeWorker) -> None:
    """Tell their tokens unasked: nothing is changed, and the log has them."""
    answer = gateway.chat("alpha", "json")
    assert "stream_options" not in json.loads(worker.next().body)
    line = gateway.logged(answer)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (1, 2)


def test_a_worker_that_tells_no_usage(gateway: Gateway, worker: FakeWorker) -> None:
    """Leaves the log without."""
    answer = gateway.http.post(CHAT, content=stream([*EVENTS, DONE.decode()]))
    assert answer.content == "".join(EVENTS).encode() + DONE
    line = gateway.logged(answer)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (None, None)


def test_numbers_are_never_retold(gateway: Gateway, worker: FakeWorker) -> None:
    """What the gateway asks for stands between the client's bytes: no seed becomes a fraction on its way."""
    body = b'{"model":"alpha", "stream":true, "stream_options": null, "seed": 12345678901234567890123, "x":[1.0, 1E2]}'
    assert gateway.http.post(CHAT, content=body).status_code == 200
    assert worker.next().body == body.replace(b"null", b'{"include_usage":true}')
