"""A client that leaves frees its worker within a second, whatever its request was waiting for."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from gateway.fleet.health import Failure
from tests.fake_worker import FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post, wait_until

WITHIN_S = 30.0  # a second on an idle host
HEALTH = b"GET /health HTTP/1.1\r\nhost: gateway\r\n\r\n"
WAITS = {
    "for the answer": ask("alpha", "json", hold=True),
    "for the first token": ask("alpha", "sse", hold=-1),
    "for the next token": ask("alpha", "sse", hold=2),
    "while tokens come": ask("alpha", "sse", chunks=100_000, delay_s=0.001),
    "without reading": ask("alpha", "flood", bytes=1 << 30),
}


def blame(gateway: Gateway) -> float:
    """Failed requests that have counted against the worker of `alpha`, for whatever reason."""
    return sum(gateway.metric("gateway_worker_failures_total", slug="alpha", failure=one) for one in Failure)


@pytest.mark.parametrize("body", WAITS.values(), ids=WAITS.keys())
def test_a_client_that_leaves_frees_the_worker(
    gateway: Gateway, worker: FakeWorker, body: dict[str, object]
) -> None:
    """The worker's connection is closed within a second; the log says 499 and blames nobody."""
    lines = len(gateway.events("request", ending="client_gone"))
    blamed = blame(gateway)
    connection = gateway.connect(post(json.dumps(body).encode()))
    seen = worker.next()
    connection.close()
    assert seen.gone.wait(WITHIN_S)
    wait_until(lambda: len(gateway.events("request", ending="client_gone")) == lines + 1, "the log line")
    line = gateway.events("request", ending="client_gone")[-1]
    assert (line["status"], line["code"], line["attempts"]) == (499, None, 1)
    assert blame(gateway) == blamed


def test_a_client_that_resets_frees_the_worker(gateway: Gateway, worker: FakeWorker) -> None:
    """A reset counts like an orderly close."""
    connection = gateway.connect(post(json.dumps(ask("alpha", "sse", hold=1)).encode()))
    seen = worker.next()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert seen.gone.wait(WITHIN_S)


@pytest.mark.parametrize("behind", [post(json.dumps(ask("alpha")).encode()), HEALTH], ids=["chat", "health"])
@pytest.mark.parametrize("do", [{"do": "sse", "hold": 1}, {"do": "json", "hold": True}], ids=["sse", "json"])
def test_a_second_request_behind_does_not_hide_that_the_client_left(
    gateway: Gateway, worker: FakeWorker, do: dict[str, object], behind: bytes
) -> None:
    """With another request pipelined behind it, the one that runs is still ended; the other never reaches a worker."""
    connection = gateway.connect(post(json.dumps(ask("alpha") | {"script": do}).encode()) + behind)
    seen = worker.next()
    connection.close()
    assert seen.gone.wait(WITHIN_S)
    assert worker.seen.empty()


def test_a_client_that_leaves_before_its_body_is_sent(gateway: Gateway, worker: FakeWorker) -> None:
    """Half a request reaches no worker, and ends as client_gone."""
    before = gateway.metric("gateway_requests_total", model="unknown", ending="client_gone")
    with gateway.connect(post(json.dumps(ask("alpha")).encode())[:-5]):
        pass
    wait_until(
        lambda: gateway.metric("gateway_requests_total", model="unknown", ending="client_gone") == before + 1,
        "the half request to be counted",
    )
    assert worker.seen.empty()


def test_a_client_that_leaves_while_the_gateway_connects(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """A client gone before there is an exchange does not leave its request running."""
    gateway = start_gateway()
    for _ in range(20):
        gateway.connect(post(json.dumps(ask("alpha", "hang")).encode())).close()
    wait_until(lambda: len(gateway.events("request", ending="client_gone")) == 20, "20 log lines")
    while not own_worker.seen.empty():
        assert own_worker.next().gone.wait(WITHIN_S)
    assert gateway.in_flight() == 0


def test_leaving_leaks_nothing(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """A hundred clients that leave, at every stage, leave no lease and no open file behind."""
    gateway = start_gateway()
    for body in WAITS.values():
        leave(gateway, own_worker, body)
    before = gateway.open_files()
    for body in list(WAITS.values()) * 20:
        leave(gateway, own_worker, body)
    wait_until(lambda: gateway.in_flight() == 0, "every lease given back")
    wait_until(lambda: gateway.open_files() <= before + 2, "every connection closed")
    assert gateway.http.post(CHAT, json=ask("alpha")).status_code == 200


def leave(gateway: Gateway, worker: FakeWorker, body: dict[str, object]) -> None:
    connection = gateway.connect(post(json.dumps(body).encode()))
    seen = worker.next()
    connection.close()
    assert seen.gone.wait(WITHIN_S)
