"""Clients find a model's reasoning under both names, `reasoning` and the former `reasoning_content`."""

from __future__ import annotations

import json
from typing import Any

from openai import OpenAI

from tests.fake_worker import DONE
from tests.integration.gateway.harness import COMPLETIONS, Gateway, Pools, ask, post, read_to_end

PLAIN = (
    '{"choices":[{"index":0,"message":{"role":"assistant","content":"4","reasoning":"2+2 \\"is\\" 4 \\\\"}}]}'
)
THOUGHT = '2+2 "is" 4 \\'
DELTA = 'data: {"choices":[{"index":0,"delta":{"reasoning":"a \\"b\\""}}]}\n\n'


def in_pieces(text: str, size: int = 7) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def test_an_answer(gateway: Gateway) -> None:
    """A whole answer, in however many pieces it comes, has both, and the length that it says."""
    answer = gateway.chat("thinker", "pieces", pieces=in_pieces(PLAIN), json=True)
    message = answer.json()["choices"][0]["message"]
    assert (message["reasoning"], message["reasoning_content"]) == (THOUGHT, THOUGHT)
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_stream(gateway: Gateway) -> None:
    """Each event has both, however the stream is cut; the openai client reads them."""
    script = {"do": "pieces", "pieces": in_pieces(DELTA * 3 + DONE.decode())}
    with OpenAI(base_url=f"http://{gateway.address}/v1", api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="thinker", messages=[], stream=True, extra_body={"script": script}
        )
        deltas: list[Any] = [chunk.choices[0].delta for chunk in stream]
    assert [(delta.reasoning, delta.reasoning_content) for delta in deltas] == [('a "b"', 'a "b"')] * 3


def test_a_broken_stream_ends_with_an_error_event(gateway: Gateway) -> None:
    """Whole events arrive, of the one that broke off nothing, and the body has no end."""
    request = post(json.dumps(ask("thinker", "pieces", pieces=[DELTA, DELTA[:40]], drop=True)).encode())
    with gateway.connect(request) as connection:
        answer = read_to_end(connection)
    assert answer.count(b"data: ") == 2
    assert b'"reasoning_content":"a \\"b\\""' in answer
    assert b"upstream_disconnected" in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_an_answer_too_long_to_hold_passes_as_it_is(gateway: Gateway) -> None:
    """Some memory, not any amount, is spent on the second name."""
    begin, end = PLAIN.split("4 ", 1)
    answer = gateway.chat("thinker", "pieces", pieces=[begin, 900_000, 900_000, end], json=True)
    assert answer.text == begin + "x" * 1_800_000 + end
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_broken_answer_is_an_error(gateway: Gateway) -> None:
    """Of an answer that must be whole before it is handed on, a break can still be told by status."""
    answer = gateway.chat("thinker", "short")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_disconnected")


def test_completions_and_other_models_stay_as_they_are(gateway: Gateway) -> None:
    """The field is one of chats, and of models whose card names a reasoning parser."""
    script = {"do": "pieces", "pieces": [PLAIN], "json": True}
    completion = gateway.http.post(COMPLETIONS, json={"model": "thinker", "prompt": "x", "script": script})
    assert completion.text == gateway.chat("alpha", **script).text == PLAIN


def test_a_client_that_leaves_frees_the_worker(gateway: Gateway, fleet: Pools) -> None:
    """While an answer is collected the client is watched all the same."""
    worker = fleet["thinker"][0]
    worker.forget()
    connection = gateway.connect(
        post(json.dumps(ask("thinker", "pieces", pieces=["{"] * 2000, json=True)).encode())
    )
    seen = worker.next()
    connection.close()
    assert seen.gone.wait(1)
    gateway.event("request", model="thinker", ending="client_gone")
