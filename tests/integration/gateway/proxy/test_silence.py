"""A worker that says nothing to a client while its engine generates is at work; without progress it is too slow."""

from __future__ import annotations

import json
import socket

import pytest

from tests.fake_worker import DONE, WAIT_S, FakeWorker, Seen, event
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post, read_to_end, wait_until

LIMIT_S, PAUSE_S = 0.8, 2.4
SHORT = {
    "GATEWAY_IDLE_TIMEOUT_S": LIMIT_S,
    "GATEWAY_FIRST_BYTE_TIMEOUT_S": LIMIT_S,
    "GATEWAY_COMMENT_S": 60,
    "GATEWAY_PROBE_TIMEOUT_S": 10,
}
HELD = {
    "within a stream": ask("alpha", "sse", chunks=2, hold=1) | {"stream": True},
    "before the first event": ask("alpha", "sse", chunks=2, hold=0) | {"stream": True},
    "before a stream's head": ask("alpha", "sse", chunks=2, hold=-1) | {"stream": True},
    "before a document": ask("alpha", "json", hold=True),
    "within a document": ask("alpha", "pieces", pieces=["{", "}"], json=True, hold=1),
}


def raw(gateway: Gateway, body: dict[str, object]) -> bytes:
    """All bytes of an answer."""
    with gateway.connect(post(json.dumps(body).encode(), "connection: close")) as connection:
        return read_to_end(connection)


def wait_for_looks(worker: FakeWorker, seconds: float, interval_s: float = 0.1) -> None:
    """Waits until the gateway has looked at the worker so often that, by its own clock, so many seconds are over."""
    looks = worker.asked["/metrics"] + seconds / interval_s * 1.2
    wait_until(lambda: worker.asked["/metrics"] > looks, f"{seconds} s of looks", 10 * WAIT_S)


def failures(gateway: Gateway) -> float:
    return gateway.metric("gateway_worker_failures_total", slug="alpha")


def send_all(gateway: Gateway, worker: FakeWorker) -> tuple[list[socket.socket], list[Seen]]:
    """Sends every request of HELD, each over a connection of its own; they reach the worker in this order."""
    connections, seen = [], []
    for body in HELD.values():
        connections.append(gateway.connect(post(json.dumps(body).encode(), "connection: close")))
        seen.append(worker.next())
    return connections, seen


def read_all(connections: list[socket.socket]) -> dict[str, bytes]:
    answers = {}
    for name, connection in zip(HELD, connections, strict=True):
        with connection:
            answers[name] = read_to_end(connection)
    return answers


def test_silence_with_progress(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Three times the limit for silence passes while tokens are generated: all answers end whole, nobody is blamed."""
    own_worker.generates()
    gateway = start_gateway(**SHORT)
    connections, seen = send_all(gateway, own_worker)
    wait_for_looks(own_worker, PAUSE_S)
    for one in seen:
        one.go_on()
    for answer in read_all(connections).values():
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"error"' not in answer
    lines = gateway.several(len(HELD), "request")
    assert {line["ending"] for line in lines} == {"complete"}
    assert (failures(gateway), gateway.slug("alpha")["workers"][0]["state"]) == (0, "ready")


def test_silence_without_progress(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """An engine whose numbers stand still is not waited for; clients are told so, and the worker is free."""
    own_worker.says(running=1, finished=1, generated=7)
    gateway = start_gateway(**SHORT)
    connections, seen = send_all(gateway, own_worker)
    answers = read_all(connections)
    assert all(one.gone.wait(WAIT_S) for one in seen)
    assert {line["code"] for line in gateway.several(len(HELD), "request")} == {"worker_timeout"}
    assert answers.pop("within a document").endswith(b"{")  # in which nothing can be said
    for answer in answers.values():
        assert b"worker_timeout" in answer
        assert b"its metrics showed no progress" in answer
        assert not answer.endswith(b"0\r\n\r\n")


def test_progress_that_ends(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """The limit counts from the last progress, and not from the last byte alone."""
    own_worker.generates()
    gateway = start_gateway(**SHORT)
    body = json.dumps(HELD["within a stream"]).encode()
    with gateway.connect(post(body, "connection: close")) as connection:
        seen = own_worker.next()
        wait_for_looks(own_worker, 2 * LIMIT_S)
        assert not seen.gone.is_set()
        own_worker.says(running=1, finished=1, generated=7)
        assert b"worker_timeout" in read_to_end(connection)
    assert failures(gateway) == 1


def test_an_answer_has_an_end_all_the_same(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """The progress may be that of other requests: one that was forgotten ends with the time for a whole answer."""
    own_worker.generates()
    gateway = start_gateway(**SHORT, GATEWAY_TOTAL_TIMEOUT_S=2)
    answer = raw(gateway, HELD["within a stream"])
    assert b"the whole answer took longer than 2 s" in answer
    assert failures(gateway) == 0


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_long_tool_call_with_default_settings(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Three events, 75 s and then 150 s apart, while the engine generates; the stream stays open by our comments."""
    own_worker.generates()
    gateway = start_gateway(GATEWAY_INTERVAL_S=2)
    for pause_s in (75, 150):
        with gateway.http.stream("POST", CHAT, json=HELD["within a stream"], timeout=60) as answer:
            chunks = answer.iter_raw()
            assert next(chunks) == event(0)
            seen = own_worker.next()
            comments = [next(chunks) for _ in range(pause_s // 15)]
            assert set(comments) == {b": keep-alive\n\n"}
            seen.go_on()
            received = b"".join(chunks)
        assert received.endswith(event(1) + DONE)
    assert (failures(gateway), gateway.slug("alpha")["workers"][0]["state"]) == (0, "ready")
