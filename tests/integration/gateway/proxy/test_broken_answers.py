"""A broken answer never looks finished, and a request is sent twice only where the first sending had no effect."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import openai
import pytest

from tests.fake_worker import COMPLETION, FakeWorker, event
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import Gateway, ask, post, read_to_end, wait_until

ENDS = ["drop", "clean", "half"]


def raw_stream(gateway: Gateway, end: str, *extra: str) -> bytes:
    """The bytes of a stream of two events that ends as `end` says, as they come over the socket."""
    body = json.dumps(ask("alpha", "sse", chunks=2, end=end)).encode()
    with gateway.connect(post(body, *extra)) as connection:
        return read_to_end(connection)


@pytest.mark.parametrize("end", ["drop", "clean"])
def test_a_broken_stream_ends_with_an_error_event(gateway: Gateway, worker: FakeWorker, end: str) -> None:
    """After the worker's own bytes comes one error event, no [DONE], and no end of the chunked body."""
    received = raw_stream(gateway, end)
    last = received.rpartition(b"data: ")[2].split(b"\n\n")[0]
    error = json.loads(last)["error"]
    assert (error["code"], error["type"], error["param"]) == ("upstream_disconnected", "server_error", None)
    assert event(0) in received
    assert event(1) in received
    assert b"[DONE]" not in received
    assert not received.endswith(b"0\r\n\r\n")


def test_a_stream_with_its_last_event_is_whole(gateway: Gateway, worker: FakeWorker) -> None:
    """A worker that is gone right after [DONE] has left nothing out."""
    received = raw_stream(gateway, "done_drop", "connection: close")
    assert received.endswith(b"0\r\n\r\n")
    assert b"error" not in received


def test_behind_half_an_event_comes_nothing(gateway: Gateway, worker: FakeWorker) -> None:
    """An error event behind half an event could not be read as one: the abort alone tells."""
    received = raw_stream(gateway, "half")
    assert event(1) in received
    assert b"error" not in received
    assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("end", ENDS)
def test_the_openai_client_raises_on_a_broken_stream(gateway: Gateway, worker: FakeWorker, end: str) -> None:
    """The openai client gets what was sent before the break, and then an exception, never a finished stream."""
    stream = gateway.openai.chat.completions.create(
        model="alpha", messages=[], stream=True, extra_body={"script": {"do": "sse", "chunks": 2, "end": end}}
    )
    words = [next(stream).choices[0].delta.content for _ in range(2)]
    assert words == [" word0", " word1"]
    with pytest.raises((openai.APIError, json.JSONDecodeError)):
        next(stream)


def test_a_worker_killed_mid_stream_breaks_the_stream(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """The death of a worker ends its streams at once with the error event, and the log calls them broken."""
    gateway = start_gateway()
    with gateway.http.stream("POST", "/v1/chat/completions", json=ask("alpha", "sse", hold=1)) as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == event(0)
        own_worker.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            assert b"upstream_disconnected" in b"".join(chunks)
    line = gateway.logged(answer)
    assert (line["status"], line["ending"], line["code"]) == (200, "broken", "upstream_disconnected")


def test_a_truncated_json_answer_is_not_complete(gateway: Gateway, worker: FakeWorker) -> None:
    """JSON cut before its length reaches the client as an incomplete body, which no client takes for an answer."""
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.chat("alpha", "short")
    assert gateway.event("request", ending="broken", stream=False)["code"] == "upstream_disconnected"


def test_a_worker_that_does_not_speak_http(gateway: Gateway, worker: FakeWorker) -> None:
    """Garbage in place of an answer is 502 bad_worker_response."""
    answer = gateway.chat("alpha", "garbage")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "bad_worker_response")


def test_a_worker_that_closes_without_an_answer(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """A fresh connection closed before any byte is 502 upstream_disconnected, and the request was sent once."""
    gateway = start_gateway()
    answer = gateway.chat("alpha", "close")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_disconnected")
    assert own_worker.seen.qsize() == 1


def test_a_first_byte_that_does_not_come(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Past the limit for the first byte the client gets 504, and the worker is let off."""
    gateway = start_gateway(GATEWAY_FIRST_BYTE_TIMEOUT_S=0.2)
    answer = gateway.chat("alpha", "hang")
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "worker_timeout")
    assert own_worker.next().gone.wait(1)


def test_the_first_byte_limit_ends_with_the_first_byte(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """A stream may take longer than the limit for its first byte."""
    gateway = start_gateway(GATEWAY_FIRST_BYTE_TIMEOUT_S=0.2)
    assert gateway.chat("alpha", "sse", chunks=4, delay_s=0.15).content.endswith(b"data: [DONE]\n\n")


def test_a_connection_closed_as_it_is_reused(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """F3: a worker that closes an idle connection just as the next request arrives costs the client nothing."""
    gateway = start_gateway()
    gateway.chat("alpha")
    own_worker.close_on_reuse = True
    answer = gateway.chat("alpha")
    assert (answer.status_code, answer.content) == (200, COMPLETION)
    assert gateway.logged(answer)["attempts"] == 2
    assert gateway.metric("gateway_retries_total") == 1


def test_a_reused_connection_lost_late_is_not_stale(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """Beyond a second the worker had the request: whatever it made of it is not made again."""
    gateway = start_gateway()
    gateway.chat("alpha")
    own_worker.forget()
    answer = gateway.chat("alpha", "close", late_s=1.2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_disconnected")
    assert own_worker.seen.qsize() == 1


def test_only_silence_is_tried_again(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """A reused connection that breaks inside its answer's head is not tried again: the worker may have begun."""
    gateway = start_gateway()
    gateway.chat("alpha")
    own_worker.forget()
    answer = gateway.chat("alpha", "half_head")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_disconnected")
    assert own_worker.seen.qsize() == 1


def test_an_idle_connection_the_worker_has_closed_is_not_used(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """F3: after a pause beyond the worker's keep-alive the next request takes a new connection at first try."""
    own_worker.idle_close_s = 0.2
    gateway = start_gateway()
    first, second = request_pause_request(gateway, own_worker)
    assert second["attempts"] == first["attempts"] == 1


def test_an_idle_connection_is_given_up_before_the_worker_does(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """F3: the pool lets go of a connection when its own time is over, long before the worker's."""
    own_worker.idle_close_s = 60
    gateway = start_gateway(GATEWAY_POOL_IDLE_S=0.2)
    first, second = request_pause_request(gateway, own_worker)
    assert second["attempts"] == first["attempts"] == 1


def request_pause_request(gateway: Gateway, worker: FakeWorker) -> list[dict[str, Any]]:
    """Sends a request, waits until its connection is closed by either side, sends another; their log lines."""
    answers = [gateway.chat("alpha")]
    used = worker.next().connection
    wait_until(lambda: used not in {one.number for one in worker.connections}, "the idle connection closed")
    answers.append(gateway.chat("alpha"))
    assert worker.next().connection != used
    return [gateway.logged(answer) for answer in answers]


def test_many_connections_lost_at_once(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """F3 under load: fifty reused connections that all close under their requests cost no client anything."""
    gateway = start_gateway()
    assert overlapping(gateway, own_worker, 50) == [COMPLETION] * 50
    own_worker.close_on_reuse = True
    assert overlapping(gateway, own_worker, 50) == [COMPLETION] * 50
    assert gateway.metric("gateway_retries_total") == 50
    assert gateway.in_flight() == 0


def overlapping(gateway: Gateway, worker: FakeWorker, count: int) -> list[bytes]:
    """The answers to `count` requests that are all in flight at the same time."""
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(gateway.chat("alpha", "json", hold=True).content))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for seen in [worker.next() for _ in range(count)]:
        seen.go_on()
    for thread in threads:
        thread.join()
    return answers
