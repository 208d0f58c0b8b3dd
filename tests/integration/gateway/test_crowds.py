"""Thousands who keep a connection and send next to nothing: they are let go in time, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway

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
