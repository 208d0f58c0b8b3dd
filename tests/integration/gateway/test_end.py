"""At SIGTERM the gateway lets its streams finish; what does not finish in time is broken off openly."""

from __future__ import annotations

import json
import signal
import time

import httpx
import pytest

from tests.fake_worker import DONE, FakeWorker, event
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post, read_to_end, wait_until


def test_a_stream_outlives_sigterm(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """/ready turns 503 while connections are still taken; the open stream ends whole; the exit code is 0."""
    gateway = start_gateway(GATEWAY_DRAIN_DELAY_S=2)
    with gateway.http.stream("POST", CHAT, json=ask("alpha", "sse", chunks=3, hold=1)) as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == event(0)
        gateway.terminate()
        gateway.event("draining")
        ready = httpx.get(f"http://{gateway.address}/ready")
        assert (ready.status_code, ready.json()["draining"]) == (503, True)
        wait_until(lambda: refuses(gateway), "the listener closed")
        own_worker.next().go_on()
        assert b"".join(chunks) == event(1) + event(2) + DONE
    assert gateway.end() == (0, "")
    assert gateway.logged(answer)["ending"] == "complete"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_gateway_ends_at_once(start_gateway: StartGateway, number: signal.Signals) -> None:
    """With nothing in flight the end takes no grace, kept-alive clients or not."""
    gateway = start_gateway()
    gateway.chat("alpha")
    sent = time.monotonic()
    gateway.process.send_signal(number)
    assert gateway.process.wait(5) == 0
    assert time.monotonic() - sent < 2
    assert gateway.end() == (0, "")


@pytest.mark.parametrize("sent", [0, 20], ids=["nothing", "half-a-head"])
def test_a_request_on_its_way_at_the_end_is_answered(
    start_gateway: StartGateway, own_worker: FakeWorker, sent: int
) -> None:
    """Who connected, or began a head, before the listener closed gets its answer; the connection closes with it."""
    gateway, request = start_gateway(), post(json.dumps(ask("alpha", "sse", chunks=1)).encode())
    with gateway.connect(request[:sent]) as connection:
        gateway.http.get("/health")  # connected later: the one above has been taken
        gateway.terminate()
        gateway.event("draining")
        wait_until(lambda: refuses(gateway), "the listener closed")
        connection.sendall(request[sent:])
        received = read_to_end(connection)
    assert received.startswith(b"HTTP/1.1 200 ")
    assert event(0) in received
    assert gateway.end() == (0, "")


def test_a_connection_without_a_request_does_not_hold_up_the_end(start_gateway: StartGateway) -> None:
    """It gets a second."""
    gateway = start_gateway()
    with gateway.connect(b""):
        gateway.terminate()
        assert gateway.process.wait(4) == 0
    assert gateway.end() == (0, "")


@pytest.mark.parametrize("sent", [0, 100], ids=["nothing", "a part"])
def test_a_body_that_does_not_come_does_not_hold_up_the_end(start_gateway: StartGateway, sent: int) -> None:
    """It gets a second, and its client a status."""
    gateway = start_gateway()
    with gateway.connect(post(b" " * 1000)[: sent - 1000]) as connection:
        gateway.http.get("/health")  # connected later: the one above has been taken
        gateway.terminate()
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 ")
    assert gateway.end() == (0, "")


def test_a_stream_beyond_the_grace_is_broken_off(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """After GATEWAY_DRAIN_S an open stream gets the error event and an aborted body; the exit code is still 0."""
    gateway = start_gateway(GATEWAY_DRAIN_S=1)
    with gateway.connect(post(json.dumps(ask("alpha", "sse", chunks=3, hold=1)).encode())) as connection:
        seen = own_worker.next()
        gateway.terminate()
        received = read_to_end(connection)
    assert seen.gone.wait(1)
    assert event(0) in received
    assert b"upstream_disconnected" in received
    assert not received.endswith(b"0\r\n\r\n")
    assert ended_with_one_cut(gateway)
    assert gateway.events("request")[-1]["ending"] == "broken"


def test_a_request_without_an_answer_beyond_the_grace(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """A request whose answer has not begun gets a status that says the gateway ends."""
    gateway = start_gateway(GATEWAY_DRAIN_S=1)
    with gateway.connect(post(json.dumps(ask("alpha", "hang")).encode())) as connection:
        own_worker.next()
        gateway.terminate()
        received = read_to_end(connection)
    assert received.startswith((b"HTTP/1.1 502 ", b"HTTP/1.1 503 "))
    assert b'"code":' in received
    assert ended_with_one_cut(gateway)


def test_a_stalled_client_does_not_hold_up_the_end(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """A client that never reads costs the grace and no more."""
    gateway = start_gateway(GATEWAY_DRAIN_S=1)
    with gateway.connect(post(json.dumps(ask("alpha", "flood", bytes=1 << 30)).encode())):
        own_worker.next()
        gateway.terminate()
        assert gateway.process.wait(5) == 0
    assert gateway.end()[0] == 0


def ended_with_one_cut(gateway: Gateway) -> bool:
    """Whether the exit code is 0, the log says that one request was cut, and standard error says nothing."""
    return gateway.end() == (0, "") and gateway.events("drained", cut=1) != []


def refuses(gateway: Gateway) -> bool:
    try:
        httpx.get(f"http://{gateway.address}/health")
    except httpx.ConnectError:
        return True
    except httpx.ReadError:  # the listener closed before it had taken this one from the kernel
        return False
    return False
