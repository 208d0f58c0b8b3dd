"""The pool of idle worker connections: the newest that is open and young enough, or none."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from gateway.fleet.workers import Worker
from gateway.http.write_coalescer import WriteCoalescer
from gateway.upstream.connection import WorkerConnection
from gateway.upstream.pool import IdleConnections, Upstream

IDLE_S = 3.0
CONNECT_S = 0.1
HEAD = b"GET / HTTP/1.1\r\n\r\n"


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


class Failures:
    """Whom an exchange tells of its end. first: how it failed."""

    def __init__(self) -> None:
        self.first: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def on_head(self, *, alone: bool) -> None: ...

    def on_chunk(self, framed: bytes) -> None: ...

    def on_payload(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_failure(self, error: Exception) -> None:
        self.first.set_result(error)

    def on_fault(self, fault: Exception) -> None:
        self.first.set_result(fault)


def hold(turns: int) -> None:
    """Makes so many turns of the loop take twice the time that a connection may take, each."""
    time.sleep(2 * CONNECT_S)
    if turns > 1:
        asyncio.get_running_loop().call_soon(hold, turns - 1)


async def test_a_loop_that_is_late_does_not_blame_the_worker() -> None:
    """Each step of a connection comes after the time for all of it, and the request is sent."""
    loop = asyncio.get_running_loop()
    upstream, failures = Upstream(CONNECT_S, IDLE_S, loop), Failures()
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream.start(Worker("a", *server.getsockname()), HEAD, (), failures)
        loop.call_soon(hold, 5)
        server.setblocking(False)
        accepted, _ = await loop.sock_accept(server)
        with accepted:
            assert await loop.sock_recv(accepted, 100) == HEAD
            assert not failures.first.done()
    upstream.close()


async def test_a_worker_that_takes_no_connection_in_time_is_given_up() -> None:
    """Its queue of connections is full."""
    loop = asyncio.get_running_loop()
    upstream, failures = Upstream(CONNECT_S, IDLE_S, loop), Failures()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as other:
        other.connect(server.getsockname())
        upstream.start(Worker("a", *server.getsockname()), HEAD, (), failures)
        error = await asyncio.wait_for(failures.first, 5)
    assert f"no connection within {CONNECT_S:g} s" in str(error)
    upstream.close()
