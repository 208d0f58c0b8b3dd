"""Thousands who keep a connection and send or take next to nothing: those that stand still are let go in time, and
nobody else notices."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter

import pytest

from bench.crowd import narrow
from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post

COUNT = 5000
HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\n".encode()
BODY = HEAD + b"content-length: 100\r\n\r\n{"
MIB = 1 << 20


async def crowd(gateway: Gateway, sent: bytes) -> Counter[bytes]:
    """COUNT connections that send this and then wait; the first lines of what they get until they are closed."""
    host, port = gateway.address.split(":")

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        told = await reader.read()
        writer.close()
        return told.partition(b"\r\n")[0]

    return Counter(await asyncio.gather(*(one() for _ in range(COUNT))))


@pytest.mark.full
@pytest.mark.parametrize("sent", [HEAD, BODY], ids=["heads", "bodies"])
async def test_a_crowd_of_slow_requests(
    start_gateway: StartGateway, own_worker: FakeWorker, sent: bytes
) -> None:
    """Each is told 408 when its time is over; meanwhile others are answered, and memory stays within bounds."""
    gateway = start_gateway(GATEWAY_HEAD_TIMEOUT_S=10, GATEWAY_BODY_TIMEOUT_S=10)
    before = gateway.rss_bytes()
    waiting = asyncio.create_task(crowd(gateway, sent))
    await asyncio.sleep(5)
    for _ in range(50):
        answer = await asyncio.to_thread(gateway.chat, "alpha")
        assert answer.content == COMPLETION
    assert gateway.rss_bytes() - before < 128 * MIB
    async with asyncio.timeout(20):
        assert set(await waiting) == {b"HTTP/1.1 408 Request Timeout"}


SLOW, STALLED = 900, 100
KIB = 1 << 10


async def open_narrow(gateway: Gateway) -> socket.socket:
    """A connection whose receiver takes a few kilobytes at a time, with a stream of a megabyte asked for."""
    connection = narrow()
    host, port = gateway.address.split(":")
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, (host, int(port)))
    await loop.sock_sendall(connection, post(json.dumps(ask("alpha", "flood", bytes=MIB)).encode()))
    return connection


async def read_slowly(connection: socket.socket, seconds: float) -> int:
    """Bytes that came at a kilobyte a second. Raises ConnectionError where the gateway has cut the stream off."""
    loop, end, taken, piece = asyncio.get_running_loop(), time.monotonic() + seconds, 0, b""
    while time.monotonic() < end:
        last, piece = piece, await loop.sock_recv(connection, KIB)
        if not piece:
            raise ConnectionError(f"cut off after {taken} bytes: {last!r}")
        taken += len(piece)
        await asyncio.sleep(1)
    return taken


@pytest.mark.full
@pytest.mark.timeout(180)
async def test_a_crowd_of_slow_readers(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """A kilobyte a second is slow, and no standstill: those keep their streams while those that take nothing are cut
    off. Fifty others are answered meanwhile, and each slow stream costs the gateway 64 KiB at most."""
    gateway = start_gateway(GATEWAY_WRITE_TIMEOUT_S=20)
    before = gateway.rss_bytes()
    slow = [await open_narrow(gateway) for _ in range(SLOW)]
    stalled = [await open_narrow(gateway) for _ in range(STALLED)]
    reading = asyncio.gather(*(read_slowly(connection, 30) for connection in slow))
    await asyncio.sleep(5)
    for _ in range(50):
        answer = await asyncio.to_thread(gateway.chat, "alpha")
        assert answer.content == COMPLETION
    assert gateway.rss_bytes() - before <= 1.1 * 64 * KIB * (SLOW + STALLED)
    assert min(await reading) >= 20 * KIB
    assert await asyncio.to_thread(lambda: gateway.in_flight()) == SLOW
    for connection in (*slow, *stalled):
        connection.close()
