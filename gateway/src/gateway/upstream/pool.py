"""The pools of worker connections: a thin HTTP/1.1 client, and nothing that a proxy does not need.

vLLM closes idle connections after 5 s. The pool forgets them after 3 s (`pool_idle_s`), and an exchange on a reused
connection that ends before any byte of the answer fails with `StaleConnection`, which a fresh one mends.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import cast

from gateway.api.errors import GatewayError, Overloaded, WorkerUnreachable
from gateway.fleet.health import is_our_limit
from gateway.fleet.workers import Worker
from gateway.http.write_coalescer import Parts, WriteCoalescer
from gateway.upstream.connection import Connection, Exchange, Receiver


@dataclass(slots=True, eq=False)
class Pool:
    """The idle connections to one worker, newest last."""

    idle_s: float
    loop: asyncio.AbstractEventLoop
    idle: deque[Connection] = field(default_factory=deque)
    closed: bool = False

    def put(self, connection: Connection) -> None:
        if self.closed:
            connection.close()
        else:
            connection.idle_since, connection.reused = self.loop.time(), True
            self.idle.append(connection)

    def take(self, now: float) -> Connection | None:
        """The newest idle connection that is open and young enough, or None; older ones are closed."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.closed and now - connection.idle_since < self.idle_s:
                return connection
            connection.close()
        return None

    def sweep(self, now: float) -> None:
        """Closes the idle connections that have grown too old."""
        while self.idle and (self.idle[0].closed or now - self.idle[0].idle_since >= self.idle_s):
            self.idle.popleft().close()

    def close(self) -> None:
        self.closed = True
        while self.idle:
            self.idle.pop().close()


class Upstream:
    """The pools of all workers. loop: the one all connections live on."""

    def __init__(self, connect_timeout_s: float, pool_idle_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop  # kept, since asking for it is a system call on Python 3.11
        self.coalescer = WriteCoalescer(loop)  # where everything that leaves the gateway is put together
        self._connect_timeout_s = connect_timeout_s
        self._pool_idle_s = pool_idle_s
        self._pools: dict[Worker, Pool] = {}
        self._connecting: set[asyncio.Task[None]] = set()

    def start(
        self, worker: Worker, head: bytes, body: Parts, receiver: Receiver, *, fresh: bool = False
    ) -> Exchange:
        """Sends a request to `worker`; `receiver` is told of the answer, never before this returns.

        fresh: do not reuse a pooled connection.
        """
        exchange, pool = Exchange(receiver), self._pool(worker)
        connection = None if fresh else pool.take(self.loop.time())
        if connection is not None:
            connection.start(exchange, head, body)
        else:
            task = self.loop.create_task(self._connect_and_start(worker, pool, exchange, head, body))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        return exchange

    async def _connect_and_start(
        self, worker: Worker, pool: Pool, exchange: Exchange, head: bytes, body: Parts
    ) -> None:
        try:
            await self._send(worker, pool, exchange, head, body)
        except Exception as fault:  # noqa: BLE001  # the boundary of one request
            exchange.fault(fault)

    async def _send(self, worker: Worker, pool: Pool, exchange: Exchange, head: bytes, body: Parts) -> None:
        try:
            connection = await self._connect(worker, pool)
        except GatewayError as error:
            exchange.fail(error)
            return
        if exchange.over:
            pool.put(connection)
        elif connection.closed:
            exchange.fail(unreachable(worker, "it closed the connection at once"))
        else:
            connection.start(exchange, head, body)

    async def _connect(self, worker: Worker, pool: Pool) -> Connection:
        """Raises WorkerUnreachable, or Overloaded if the gateway itself has no file or memory left for it."""
        connection = Connection(pool.put, self.coalescer, self.loop.time)
        protocol = cast(asyncio.Protocol, connection)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self.loop.create_connection(lambda: protocol, worker.host, worker.port)
        except TimeoutError as error:
            raise unreachable(worker, f"no connection within {self._connect_timeout_s:g} s") from error
        except OSError as error:
            if is_our_limit(error):
                raise Overloaded(
                    f"The gateway has no room for another connection: {error.strerror}"
                ) from error
            raise unreachable(worker, error.strerror or str(error)) from error
        except UnicodeError as error:  # of a name that cannot be one of a host
            raise unreachable(worker, str(error)) from error
        return connection

    def _pool(self, worker: Worker) -> Pool:
        pool = self._pools.get(worker)
        if pool is None:
            pool = self._pools[worker] = Pool(self._pool_idle_s, self.loop)
        return pool

    def sweep(self) -> None:
        """Closes idle connections past their time; called once a round."""
        now = self.loop.time()
        for pool in self._pools.values():
            pool.sweep(now)

    def forget(self, worker: Worker) -> None:
        """Drops the pool of a worker that has left."""
        pool = self._pools.pop(worker, None)
        if pool is not None:
            pool.close()

    def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        for worker in list(self._pools):
            self.forget(worker)


def unreachable(worker: Worker, why: str) -> GatewayError:
    return WorkerUnreachable(
        f"A worker of {worker.slug} cannot be reached ({why}); try again after Retry-After seconds"
    )
