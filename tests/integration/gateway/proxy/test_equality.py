"""What a client gets through the gateway is, byte for byte, what it gets from the worker itself."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fake_worker import JSON, SSE, WAIT_S, FakeWorker, cut
from tests.integration.gateway.harness import CHAT, COMPLETIONS, Gateway

SEED = 1
LETTERS = [
    "a",
    " ",
    '"',
    "\\",
    "\n",
    "\r",
    "\x00",
    "\x7f",
    "é",
    "\u2028",
    "中",
    "\ufeff",
    "\U0001f600",
    "\U0010ffff",
]
# What the gateway looks for in an answer: in a text these words are nothing but a text.
TRICKY = ['"usage":{', '"choices":[]', "data: [DONE]", "\n\n", '"reasoning":"x"', "}}\r\n\r\n", "0\r\n\r\n"]
ASKS = b'"include_usage":true'
TELLS_USAGE = ({"include_usage": True}, {"include_usage": True, "continuous_usage_stats": False})
SILENT = ({"include_usage": False}, None, {})


@pytest.mark.parametrize(
    "count", [300, pytest.param(10_000, marks=[pytest.mark.full, pytest.mark.timeout(1800)])]
)
def test_answers_are_byte_identical(gateway: Gateway, worker: FakeWorker, count: int) -> None:
    """JSON, errors and streams, of any size, in any pieces; the worker sees the client's body, but for the usage."""
    dice = random.Random(SEED)
    with httpx.Client(base_url=f"http://{worker.address}", timeout=WAIT_S, trust_env=False) as direct:
        for number in range(count):
            path, body, pieces = dice.choice((CHAT, COMPLETIONS)), request(dice), sizes(dice)
            answers = [post(client, path, body, pieces) for client in (direct, gateway.http)]
            assert told(answers[1]) == told(answers[0]), f"request {number} of seed {SEED}"
            sent, seen = worker.next().body, worker.next().body
            assert (sent, seen) == (body, asking(body)), f"request {number} of seed {SEED}"


def post(client: httpx.Client, path: str, body: bytes, pieces: list[int]) -> httpx.Response:
    """Posts a body, in chunks if it is to come in pieces."""
    content = cut(body, pieces) if pieces else body
    return client.post(path, content=content, headers={"content-type": JSON})


def told(answer: httpx.Response) -> tuple[int, str, bytes]:
    return answer.status_code, answer.headers["content-type"], answer.content


def asking(body: bytes) -> bytes:
    """A body with what the gateway puts in where the client does not ask for its stream's usage."""
    fields = json.loads(body)
    options = fields.get("stream_options")
    if not fields.get("stream") or (options or {}).get("include_usage"):
        return body
    if "stream_options" not in fields:
        return body.replace(b"{", b'{"stream_options":{%b},' % ASKS, 1)
    start = re.search(rb'"stream_options"\s*:\s*', body).end()
    said, put = (b"false", b"true") if options else (b"{}" if options == {} else b"null", b"{%b}" % ASKS)
    return body[:start] + body[start:].replace(said, put, 1)


def request(dice: random.Random) -> bytes:
    """The body of a request, with the answer that it wants."""
    stream = dice.random() < 0.6
    options = dice.choice((*TELLS_USAGE, *SILENT))
    body = {
        "model": "alpha",
        "messages": [{"role": "user", "content": text(dice, 200)}],
        **({"stream": True} if stream else {}),
        **({"stream_options": options} if stream and dice.random() < 0.5 else {}),
        "script": {"do": "cut", **(streamed(dice) if stream else whole(dice)), **framed(dice)},
    }
    return dumps(dice, body).encode()


def streamed(dice: random.Random) -> dict[str, Any]:
    """A stream's events, and now and then a comment."""
    events = "".join(event(dice) for _ in range(length(dice, 60)))
    return {"kind": SSE, "text": events}


def event(dice: random.Random) -> str:
    end = dice.choice(("\n\n", "\n\n", "\r\n\r\n"))
    if dice.random() < 0.05:
        return f": ping{end}"
    choice = {
        "index": 0,
        "delta": {"content": text(dice, dice.choice((5, 5, 5, 3000)))},
        "finish_reason": None,
    }
    return f"data: {dumps(dice, {'id': 'chatcmpl-1', 'model': 'm', 'choices': [choice]})}{end}"


def whole(dice: random.Random) -> dict[str, Any]:
    """One JSON document, or an error."""
    message = {"role": "assistant", "content": text(dice, dice.choice((10, 500, 30_000)))}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    document = {"id": "1", "choices": [{"index": 0, "message": message}], "usage": usage}
    return {"kind": JSON, "status": dice.choice((200, 200, 200, 400, 422)), "text": dumps(dice, document)}


def framed(dice: random.Random) -> dict[str, Any]:
    frame = dice.choice(("chunks", "chunks", "chunks", "length", "close"))
    return {"frame": frame, "chunks": sizes(dice) or [1 << 20], "writes": sizes(dice) or [1 << 20]}


def sizes(dice: random.Random) -> list[int]:
    """Sizes of pieces in bytes, the last one large enough for the whole not to take long; none: all in one."""
    return [length(dice, 700) + 1 for _ in range(dice.randrange(4))] + [4096] if dice.random() < 0.8 else []


def length(dice: random.Random, most: int) -> int:
    """From 0 to `most`; small ones as often as large ones."""
    return int(most ** dice.random()) - dice.randrange(2)


def text(dice: random.Random, most: int) -> str:
    return "".join(pieces(dice, length(dice, most)))


def pieces(dice: random.Random, count: int) -> Iterator[str]:
    for _ in range(count):
        yield dice.choice(TRICKY) if dice.random() < 0.02 else dice.choice(LETTERS)


def dumps(dice: random.Random, value: object) -> str:
    """JSON in a spelling of its own."""
    separators = dice.choice(((",", ":"), (", ", ": "), (" ,\t", " : ")))
    return json.dumps(value, separators=separators, ensure_ascii=dice.random() < 0.5)
