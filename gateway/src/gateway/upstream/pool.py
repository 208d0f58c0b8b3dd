"""The HTTP/1.1 client for workers: opens connections and keeps idle ones for reuse, per worker.

vLLM closes idle connections after 5 s, so they are closed here after 3 s (`pool_idle_s`). If a reused one still ends
before any byte of the answer, the exchange fails with `StaleConnection`, and its caller retries with fresh=True."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final, cast

from gateway.api.errors import GatewayError, Overloaded, WorkerUnreachable
from gateway.fleet.health import is_our_limit
from gateway.fleet.workers import Worker
from gateway.http.write_coalescer import Parts, WriteCoalescer
from gateway.upstream.connection import Exchange, Receiver, WorkerConnection

CONNECT_PARTS: Final = 10  # into which connect_timeout_s is divided: see _wait_for
Opened = tuple[asyncio.Transport, asyncio.Protocol]


@dataclass(slots=True, eq=False)
class IdleConnections:
    """The idle connections to one worker, newest last; `Upstream` has one of these for each worker."""

    idle_s: float  # seconds after which an idle connection is not reused
    loop: asyncio.AbstractEventLoop
    idle: deque[WorkerConnection] = field(default_factory=deque)
    closed: bool = False

    def put(self, connection: WorkerConnection) -> None:
        """Keep a connection for reuse, or close it if `close` was called. The connection calls it as its `keep`;
        `Upstream` does for a new one whose exchange was cancelled before it was open."""
        if self.closed:
            connection.close()
        else:
            connection.idle_since, connection.reused = self.loop.time(), True
            self.idle.append(connection)

    def take(self, now: float) -> WorkerConnection | None:
        """Remove and return the newest connection that is open and young enough, or None; close the others it meets."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.closed and now - connection.idle_since < self.idle_s:
                return connection
            connection.close()
        return None

    def sweep(self, now: float) -> None:
        """Close the connections that have been idle for `idle_s` or longer: `take` meets only the newest."""
        while self.idle and (self.idle[0].closed or now - self.idle[0].idle_since >= self.idle_s):
            self.idle.popleft().close()

    def close(self) -> None:
        """Close all idle connections, and from now on those that `put` brings: the worker left, or the gateway ends."""
        self.closed = True
        while self.idle:
            self.idle.pop().close()


class Upstream:
    """The client for all workers; each process has one. loop: the event loop on which it runs."""

    def __init__(self, connect_timeout_s: float, pool_idle_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop  # kept, since asyncio.get_running_loop() makes a system call on Python 3.11
        self.coalescer = WriteCoalescer(loop)  # all connections' writes, clients' too
        self._connect_timeout_s = connect_timeout_s
        self._pool_idle_s = pool_idle_s
        self._idle_by_worker: dict[Worker, IdleConnections] = {}
        self._connecting: set[asyncio.Task[None]] = set()

    def start(
        self, worker: Worker, head: bytes, body: Parts, receiver: Receiver, *, fresh: bool = False
    ) -> Exchange:
        """Send a request to `worker` without blocking; `receiver` is called with the answer, never before this returns.
        fresh: open a new connection instead of reusing an idle one."""
        exchange, idle = Exchange(receiver), self._idle_of(worker)
        connection = None if fresh else idle.take(self.loop.time())
        if connection is not None:
            connection.start(exchange, head, body)
        else:
            task = self.loop.create_task(self._connect_and_start(worker, idle, exchange, head, body))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        return exchange

    async def _connect_and_start(
        self, worker: Worker, idle: IdleConnections, exchange: Exchange, head: bytes, body: Parts
    ) -> None:
        """Run `_start_on_new` as a task. What that raises is a bug, told to the exchange: nobody awaits the task."""
        try:
            await self._start_on_new(worker, idle, exchange, head, body)
        except Exception as fault:  # noqa: BLE001  # the boundary of one request: a bug ends here
            exchange.fault(fault)

    async def _start_on_new(
        self, worker: Worker, idle: IdleConnections, exchange: Exchange, head: bytes, body: Parts
    ) -> None:
        """Start the exchange on a new connection, or fail it; if it was cancelled meanwhile, keep that for reuse."""
        try:
            connection = await self._connect(worker, idle)
        except GatewayError as error:
            exchange.fail(error)
            return
        if exchange.over:
            idle.put(connection)
        elif connection.closed:
            exchange.fail(unreachable("it closed the connection at once"))
        else:
            connection.start(exchange, head, body)

    async def _connect(self, worker: Worker, idle: IdleConnections) -> WorkerConnection:
        """Open a connection. Raises WorkerUnreachable, or Overloaded if this process is out of files or memory."""
        connection = WorkerConnection(idle.put, self.coalescer, self.loop.time)
        protocol = cast(asyncio.Protocol, connection)
        opening = self.loop.create_task(
            self.loop.create_connection(lambda: protocol, worker.host, worker.port)
        )
        try:
            await self._wait_for(opening)
        except TimeoutError as error:
            raise unreachable(f"no connection within {self._connect_timeout_s:g} s") from error
        except OSError as error:
            if is_our_limit(error):
                raise Overloaded(
                    f"The gateway has no room for another connection: {error.strerror}"
                ) from error
            raise unreachable(error.strerror or str(error)) from error
        except UnicodeError as error:  # the worker's name cannot be a host name
            raise unreachable(str(error)) from error
        return connection

    async def _wait_for(self, opening: asyncio.Task[Opened]) -> None:
        """Wait until the connection is open. Raises TimeoutError after connect_timeout_s, or what its opening raised.
        The time passes in parts, each of which takes a turn of the loop: a loop that is late, because other processes
        have the processor, then sees that the connection is there and does not blame the worker."""
        try:
            for _ in range(CONNECT_PARTS):
                await asyncio.wait((opening,), timeout=self._connect_timeout_s / CONNECT_PARTS)
                if opening.done():
                    opening.result()
                    return
        finally:
            opening.cancel()  # no effect if it is done
        raise TimeoutError

    def _idle_of(self, worker: Worker) -> IdleConnections:
        """Return the worker's idle connections; the first request to a worker makes an empty object."""
        idle = self._idle_by_worker.get(worker)
        if idle is None:
            idle = self._idle_by_worker[worker] = IdleConnections(self._pool_idle_s, self.loop)
        return idle

    def sweep(self) -> None:
        """Close connections that were idle for too long; `DiscoveryLoop.discover` calls it every few seconds."""
        now = self.loop.time()
        for idle in self._idle_by_worker.values():
            idle.sweep(now)

    def forget(self, worker: Worker) -> None:
        """Close the idle connections to a worker (discovery has removed it, or the gateway ends); exchanges go on."""
        idle = self._idle_by_worker.pop(worker, None)
        if idle is not None:
            idle.close()

    def close(self) -> None:
        """Cancel connects that run, whose receivers are not told, and close idle connections: the gateway ends."""
        for task in self._connecting:
            task.cancel()
        for worker in list(self._idle_by_worker):
            self.forget(worker)


def unreachable(why: str) -> GatewayError:
    """Return the error for a connection that could not be made or used. why: the reason, for its message."""
    return WorkerUnreachable(f"The worker cannot be reached ({why}); try again after Retry-After seconds")
