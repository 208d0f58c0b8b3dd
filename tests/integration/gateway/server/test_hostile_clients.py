"""Clients that send more than they read, or what is no HTTP: memory stays bounded, and answers stay apart."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress

import pytest

from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post, read_to_end, wait_until

MIB = 1 << 20
OFFER = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAAB")


def push(connection: socket.socket, data: bytes, seconds: float) -> int:
    """Sends `data` again and again until the peer takes no more, or the time is over; returns the bytes sent."""
    connection.settimeout(0.5)
    sent, deadline = 0, time.monotonic() + seconds
    with suppress(TimeoutError):
        while time.monotonic() < deadline:
            sent += connection.send(data)
    return sent


def test_who_asks_and_never_reads_is_read_no_further(start_gateway: StartGateway) -> None:
    """Refusals that nobody reads are not piled up: one connection cannot take the gateway's memory."""
    gateway = start_gateway()
    before = gateway.rss_bytes()
    refused = f"GET {CHAT} HTTP/1.1\r\nhost: gateway\r\n\r\n".encode() * 1000
    with gateway.connect() as connection:
        push(connection, refused, 4)
        assert gateway.rss_bytes() - before < 32 * MIB
    assert gateway.http.get("/health").status_code == 200


def test_an_upload_behind_a_running_request_waits(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """What is pipelined behind a request that runs is not read into memory, limit or no limit."""
    gateway = start_gateway()
    running = post(json.dumps(ask("alpha", "sse", hold=1)).encode())
    endless = post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked", 1)
    refused = f"GET {CHAT} HTTP/1.1\r\nhost: gateway\r\n\r\n".encode()
    with gateway.connect(refused + running + endless) as connection:
        own_worker.next()
        before = gateway.rss_bytes()
        push(connection, b"10000\r\n" + b"x" * 65536 + b"\r\n", 3)
        assert gateway.rss_bytes() - before < 32 * MIB


def test_clients_that_leave_take_their_bodies_with_them(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """A big request whose client leaves, before its end or in the middle of the answer, leaves nothing behind."""
    gateway = start_gateway(GATEWAY_MAX_TEXT_BYTES=50 * MIB)
    body = json.dumps(ask("alpha", "sse", hold=1) | {"padding": "x" * 20 * MIB}).encode()
    before = gateway.rss_bytes()
    for missing in (0, 5) * 6:
        request = post(body)
        with gateway.connect(request[: len(request) - missing]):
            if not missing:
                own_worker.next()
    wait_until(lambda: len(gateway.events("request", ending="client_gone")) == 12, "12 log lines")
    assert gateway.rss_bytes() - before < 80 * MIB


def test_an_offer_of_http_2_whose_body_comes_later(gateway: Gateway, worker: FakeWorker) -> None:
    """The offer is passed over, the body is awaited, and the next request on the connection is answered too."""
    first, second = post(json.dumps(ask("alpha")).encode(), *OFFER), post(json.dumps(ask("alpha")).encode())
    with gateway.connect(first[:-20]) as connection:
        time.sleep(0.1)
        connection.sendall(first[-20:] + second.replace(b"host:", b"connection: close\r\nhost:", 1))
        assert read_to_end(connection).count(COMPLETION) == 2


def test_a_request_for_a_tunnel_is_refused(gateway: Gateway) -> None:
    """CONNECT is no route, and no loop either."""
    with gateway.connect(b"CONNECT example:80 HTTP/1.1\r\nhost: example\r\n\r\n") as connection:
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")


def test_nonsense_behind_a_request_costs_it_nothing(gateway: Gateway, worker: FakeWorker) -> None:
    """Its answer comes whole, and behind it the refusal of what is no request, and the end."""
    body = json.dumps(ask("alpha", "sse", chunks=3, hold=1)).encode()
    with gateway.connect(post(body) + b"no http at all\r\n\r\n") as connection:
        worker.next().go_on()
        answer, _, refusal = read_to_end(connection).partition(b"\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert refusal.startswith(b"HTTP/1.1 400 ")


def test_a_length_of_thousands_of_digits_is_too_large(gateway: Gateway) -> None:
    """The number is refused, not computed."""
    length = "0" * 5000 + "5"
    with gateway.connect(
        post(b"").replace(b"content-length: 0", f"content-length: {length}".encode(), 1)
    ) as c:
        c.sendall(b"12345")
        c.shutdown(socket.SHUT_WR)
        assert b"500 Internal" not in read_to_end(c)


def test_a_cut_stream_of_http_1_0_does_not_look_finished(gateway: Gateway, worker: FakeWorker) -> None:
    """Its only end is the connection's: a cut is a reset."""
    body = json.dumps(ask("alpha", "sse", chunks=2, end="half")).encode()
    request = post(body).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with gateway.connect(request) as connection, pytest.raises(ConnectionResetError):
        read_to_end(connection)
