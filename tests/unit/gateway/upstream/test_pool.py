"""The pool of idle worker connections: the newest that is open and young enough, or none."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from gateway.http.write_coalescer import WriteCoalescer
from gateway.upstream.connection import WorkerConnection
from gateway.upstream.pool import IdleConnections

IDLE_S = 3.0


class Line:
    """A pool whose connections are socket pairs; `peers` are the workers' ends."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.pool = IdleConnections(IDLE_S, asyncio.get_running_loop())
        self.peers: list[socket.socket] = []

    async def idle_since(self, moment: float) -> WorkerConnection:
        """A connection that was given back at `moment`."""
        ours, theirs = socket.socketpair()
        self.peers.append(self._stack.enter_context(theirs))
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: WorkerConnection(self.pool.put, WriteCoalescer(loop), loop.time), sock=ours
        )
        self.pool.put(connection)
        connection.idle_since = moment
        return connection


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    """An empty pool."""
    with ExitStack() as stack:
        yield Line(stack)


async def test_the_newest_connection_is_taken_first(line: Line) -> None:
    """The longest idle ones are left to grow old."""
    older, newer = await line.idle_since(10), await line.idle_since(11)
    assert [line.pool.take(12), line.pool.take(12), line.pool.take(12)] == [newer, older, None]
    older.close()
    newer.close()


async def test_a_connection_past_its_time_is_not_taken(line: Line) -> None:
    """At the limit a connection is closed, whether a sweep has passed or not."""
    connection = await line.idle_since(10)
    assert line.pool.take(10 + IDLE_S) is None
    assert connection.closed


async def test_a_connection_the_worker_closed_is_not_taken(line: Line) -> None:
    """A closed connection is passed over for an older one that is open."""
    older, _ = await line.idle_since(10), await line.idle_since(11)
    line.peers[1].close()
    await asyncio.sleep(0.01)  # the loop's turn in which it sees the end
    assert line.pool.take(12) is older
    older.close()


async def test_a_worker_that_speaks_while_idle_is_closed(line: Line) -> None:
    """Bytes that nobody asked for end the connection."""
    connection = await line.idle_since(10)
    line.peers[0].send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    await asyncio.sleep(0.01)  # the loop's turn in which it reads them
    assert connection.closed
    assert line.pool.take(11) is None


async def test_a_sweep_closes_the_old_and_leaves_the_young(line: Line) -> None:
    """A sweep at a moment closes what is past its time at that moment."""
    old, young = await line.idle_since(10), await line.idle_since(12)
    line.pool.sweep(10 + IDLE_S)
    assert (old.closed, young.closed) == (True, False)
    line.pool.close()
    assert young.closed
