"""What a request of a key used is known, of an aborted stream too, and clients do not see how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config.api_keys import hash_key
from tests.fake_worker import DONE, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
KEY = {"authorization": "Bearer sk-team"}
EACH = {"include_usage": True, "continuous_usage_stats": True}


def chunk(number: int, usage: bool, name: str = "content") -> str:
    """The event with a choice's token `number`, with the usage so far or without."""
    told = f',"usage":{{"prompt_tokens":7,"total_tokens":{7 + number},"completion_tokens":{number}}}' * usage
    return f'data: {{"id":"c","choices":[{{"index":0,"delta":{{"{name}":"w{number}"}}}}]{told}}}\n\n'


LAST = (
    'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,'
    + '"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
)


@pytest.fixture
def gateway(start_gateway: StartGateway, own_worker: FakeWorker, tmp_path: Path) -> Gateway:
    path = tmp_path / "keys"
    path.write_text(f"sha256:{hash_key(b'sk-team')} team\n")
    return start_gateway(GATEWAY_API_KEYS_FILE=path)


def body(pieces: list[str], **fields: object) -> dict[str, Any]:
    script = {"do": "pieces", "pieces": pieces, "hold": fields.pop("hold", -1)}
    return {"model": "alpha", "prompt": "", "stream": True, "script": script, **fields}


@pytest.mark.parametrize(
    ("options", "sees_each", "sees_last"),
    [(None, False, False), ({"include_usage": True}, False, True), (EACH, True, True)],
)
def test_a_client_gets_what_it_asked_for(
    gateway: Gateway, own_worker: FakeWorker, options: object, sees_each: bool, sees_last: bool
) -> None:
    """The worker is asked for usage in each chunk; the client gets the bytes that it would get without."""
    asked = {} if options is None else {"stream_options": options}
    pieces = [*(chunk(number, True) for number in (1, 2, 3)), LAST, DONE.decode()]
    answer = gateway.http.post(CHAT, json=body(pieces, **asked), headers=KEY)
    assert json.loads(own_worker.next().body)["stream_options"] == EACH
    wanted = [chunk(number, sees_each) for number in (1, 2, 3)] + [LAST] * sees_last
    assert answer.content == "".join(wanted).encode() + DONE
    line = gateway.logged(answer)
    assert (line["prompt_tokens"], line["completion_tokens"], line["cached_tokens"]) == (7, 3, 4)


@pytest.mark.parametrize(
    ("path", "pieces", "tokens"),
    [
        (CHAT, [chunk(number, True) for number in (1, 2, 3)], (7, 3)),
        (CHAT, [chunk(number, True, "reasoning") for number in (1, 2, 3)], (7, 3)),
        (MESSAGES, ['event: message_start\ndata: {"message":{"usage":{"input_tokens":7,"output_tokens":0}}}\n\n',
                    *["event: content_block_delta\ndata: {}\n\n"] * 3], (7, 3)),
        (RESPONSES, ['event: response.created\ndata: {"response":{"id":"resp_1","usage":null}}\n\n',
                     *["event: response.output_text.delta\ndata: {}\n\n"] * 3], (0, 3)),
    ],
)  # fmt: skip
def test_a_client_that_leaves_in_the_middle(
    gateway: Gateway, own_worker: FakeWorker, path: str, pieces: list[str], tokens: tuple[int, int]
) -> None:
    """What came until then counts, wherever the route tells it."""
    asked = body([*pieces, DONE.decode()], hold=len(pieces))
    with gateway.http.stream("POST", path, json=asked, headers=KEY) as answer:
        received = b""
        for part in answer.iter_raw():
            received += part
            if received.count(b"\n\n") == len(pieces):
                break
        assert b"usage" not in received or path != CHAT
    line = gateway.event("request", id=answer.headers["x-request-id"])
    assert (line["ending"], line["prompt_tokens"], line["completion_tokens"]) == ("client_gone", *tokens)


def test_a_stream_that_the_worker_breaks_off(gateway: Gateway, own_worker: FakeWorker) -> None:
    """Likewise."""
    asked = body([chunk(1, True), chunk(2, True)])
    asked["script"]["drop"] = True
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.http.post(CHAT, json=asked, headers=KEY)
    line = gateway.event("request", ending="broken")
    assert (line["prompt_tokens"], line["completion_tokens"]) == (7, 2)
