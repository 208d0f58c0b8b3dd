"""Many at once, and clients slower than their worker: every answer whole, memory bounded."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import httpx
import pytest

from tests.fake_worker import DONE, FakeWorker, Seen, event
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, Pools, Site, ask, post

STREAMS, CHUNKS = 200, 20
MIB = 1 << 20


async def streams(gateway: Gateway, count: int) -> list[bytes]:
    """The bodies of `count` streams of CHUNKS chunks, all open at the same time."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"http://{gateway.address}", timeout=30, limits=limits) as client:
        body = ask("pair", "sse", chunks=CHUNKS, delay_s=0.05)
        answers = await asyncio.gather(*(client.post(CHAT, json=body) for _ in range(count)))
    return [answer.content for answer in answers]


def test_two_hundred_streams_at_once_are_whole(gateway: Gateway, fleet: Pools) -> None:
    """Every one of 200 concurrent streams arrives byte for byte, and two workers have carried half of them each."""
    for worker in fleet["pair"]:
        worker.forget()
    bodies = asyncio.run(streams(gateway, STREAMS))
    whole = b"".join(event(number) for number in range(CHUNKS)) + DONE
    assert Counter(bodies) == {whole: STREAMS}
    assert [worker.seen.qsize() for worker in fleet["pair"]] == [STREAMS // 2] * 2
    assert gateway.in_flight() == 0


@pytest.mark.parametrize("reasons", [False, True], ids=["plain", "reasoning"])
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_a_client_that_does_not_read_costs_no_memory(
    site: Site, start_gateway: StartGateway, own_worker: FakeWorker, reasons: bool, kind: str
) -> None:
    """The gateway stops reading from the worker when its client does not read; the rest the kernel holds.

    Its two connections take up to tcp_rmem and tcp_wmem each, 72 MB at Linux's largest defaults. Of a document in which
    the reasoning is renamed the gateway holds a mebibyte, and goes on holding it once it is on its way out.
    """
    most = 32 * MIB if reasons and kind == "application/json" else 16 * MIB
    site.declare("alpha", "alpha", reasons=reasons)
    gateway = start_gateway()
    gateway.chat("alpha", "flood", bytes=MIB)
    own_worker.forget()
    asked = ask("alpha", "flood", bytes=512 * MIB, kind=kind)
    before, body = gateway.rss_bytes(), json.dumps(asked).encode()
    connections = [gateway.connect(post(body)) for _ in range(8)]
    taken = [settled(own_worker.next()) for _ in connections]
    assert max(taken) < 128 * MIB
    assert gateway.rss_bytes() - before < most
    for connection in connections:
        connection.close()


def settled(seen: Seen) -> int:
    """How many bytes the worker got rid of before its side came to a stop."""
    assert seen.stalled.wait(10)
    return seen.payload_bytes


def test_a_slow_reader_gets_every_byte(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """A stream that has stalled goes on where it stopped, and its connection serves the next request."""
    gateway = start_gateway()
    with gateway.http.stream("POST", CHAT, json=ask("alpha", "flood", bytes=64 * MIB)) as answer:
        seen = own_worker.next()
        assert seen.stalled.wait(10)
        size = sum(len(chunk) for chunk in answer.iter_raw())
    assert size == seen.payload_bytes > 63 * MIB
    gateway.chat("alpha")
    assert own_worker.next().connection == seen.connection


def test_a_stalled_client_does_not_slow_the_others(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """While one client does not read, another one's stream comes through."""
    gateway = start_gateway()
    with gateway.connect(post(json.dumps(ask("alpha", "flood", bytes=512 * MIB)).encode())):
        assert own_worker.next().stalled.wait(10)
        assert gateway.chat("alpha", "sse").content.endswith(DONE)
