"""The worker connection: a thin pooled HTTP/1.1 client over httptools, and nothing that a proxy does not need.

An exchange is one request and its response on one connection. The body's bytes are poured into a function as they come,
without an object or a task per chunk; a slow reader pauses the worker's socket.

vLLM closes idle connections after 5 s. The pool forgets them after 3 s (`pool_idle_s`), and an exchange on a reused
connection that ends before any response byte raises `StaleConnection`, which the caller answers with a fresh one.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import httptools

from gateway.errors import BadWorkerResponse, GatewayError, WorkerDisconnected, WorkerUnreachable
from gateway.workers import Worker

HIGH_WATER_BYTES = 64 * 1024
Headers = list[tuple[bytes, bytes]]


class StaleConnection(Exception):
    """A reused connection was closed by the worker before the first byte of its answer: send again on a new one."""


class Exchange:
    """One request's response on one connection: first `head()`, then `take()`, then `pour()`."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_failure",
        "_head_done",
        "_loop",
        "_size",
        "_waiter",
        "complete",
        "headers",
        "status",
    )

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._loop = connection.loop
        self._chunks: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._head_done = False
        self.complete = False
        self.status = 0
        self.headers: Headers = []

    async def head(self) -> None:
        """Waits for status and headers. Raises StaleConnection, WorkerDisconnected or whatever `fail` was given."""
        while not self._head_done:
            self._raise_failure()
            await self._wait()

    def take(self) -> bytes:
        """The body bytes that came with the head; may be b""."""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks, self._size = [], 0
        self._connection.resume()
        return data

    async def pour(self, sink: Callable[[bytes], None]) -> None:
        """Hands `sink` the bytes after those taken, as they come, until the body is complete. Raises as `head` does."""
        self._connection.deliver = sink
        while not self.complete:
            self._raise_failure()
            await self._wait()

    def pause(self) -> None:
        """Stops reading from the worker, while the client does not keep up."""
        if not self.complete:
            self._connection.pause()

    def resume(self) -> None:
        self._connection.resume()

    def fail(self, error: BaseException) -> None:
        """Ends the exchange from outside (the client left, a deadline passed) and closes its connection."""
        if not self.complete:
            self._on_failure(error)
            self._connection.close()

    def release(self) -> None:
        """Gives the connection back: to the pool after a complete response, else it is closed."""
        self._connection.release(self)

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER_BYTES:
            self._connection.pause()

    def on_head(self, status: int) -> None:
        self.status, self._head_done = status, True
        self._wake()

    def on_complete(self) -> None:
        self.complete = True
        self._wake()

    def forget_failure(self) -> None:
        """Once raised, it knows every frame up to the request's body: a circle, left to the garbage collector."""
        self._failure = None

    def _on_failure(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._wake()

    def on_connection_lost(self, stale: bool) -> None:
        if self.complete:
            return
        if stale:
            self._on_failure(StaleConnection())
        else:
            self._on_failure(
                WorkerDisconnected("The worker closed the connection before its answer was complete")
            )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """One TCP connection to a worker; carries one exchange at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: "Pool") -> None:
        self.loop = loop
        self._pool = pool
        self._parser: httptools.HttpResponseParser | None = None
        self._exchange: Exchange | None = None
        self.deliver: Callable[[bytes], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._used = False
        self._silent = True
        self.reusable = False
        self.idle_since = 0.0

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def start(self, request: bytes) -> Exchange:
        """Sends `request` (head and body) and returns its exchange. The connection must be open and idle."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._exchange = Exchange(self)
        self._exchange_headers = self._exchange.headers
        self.deliver = self._exchange.feed
        self._silent = True
        self.reusable = False
        self._transport.write(request)
        return self._exchange

    def release(self, exchange: Exchange) -> None:
        exchange.forget_failure()
        if exchange is not self._exchange:
            return
        self._exchange = self.deliver = None
        self._used = True
        self.resume()
        if exchange.complete and self.reusable and not self.closed:
            self.idle_since = self.loop.time()
            self._pool.put(self)
        else:
            self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, which inherits nothing

    def data_received(self, data: bytes) -> None:
        if self._exchange is None or self._parser is None or self._exchange.complete:
            self.close()  # a worker that speaks out of turn cannot be trusted with the next exchange
            return
        self._silent = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._exchange.fail(BadWorkerResponse(f"The worker's answer is not HTTP/1.1: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._parser = None
        if self._exchange is not None:
            self._exchange.on_connection_lost(stale=self._used and self._silent)

    # the parser's callbacks; an interim answer (1xx) is passed over

    def on_message_begin(self) -> None:
        assert self._exchange is not None
        if self._exchange.complete:
            raise BadWorkerResponse("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._exchange_headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._exchange is not None
        assert self._parser is not None
        status = self._parser.get_status_code()
        if not 100 <= status <= 599:
            raise BadWorkerResponse(f"status {status}")
        if status < 200:
            self._exchange_headers.clear()
        else:
            self._exchange.on_head(status)

    def on_body(self, body: bytes) -> None:
        assert self.deliver is not None
        self.deliver(body)

    def on_message_complete(self) -> None:
        assert self._exchange is not None
        assert self._parser is not None
        if self._parser.get_status_code() >= 200:
            self.reusable = self._parser.should_keep_alive()
            self._exchange.on_complete()


@dataclass(slots=True, eq=False)
class Pool:
    """The idle connections to one worker, newest last."""

    idle_s: float
    idle: deque[Connection] = field(default_factory=deque)
    closed: bool = False

    def put(self, connection: Connection) -> None:
        """Keeps an idle connection, unless the worker has been given up meanwhile."""
        if self.closed:
            connection.close()
        else:
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
    """The pools of all workers."""

    def __init__(self, connect_timeout_s: float, pool_idle_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._pool_idle_s = pool_idle_s
        self._pools: dict[Worker, Pool] = {}

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop all connections live on. Kept, since asking for it is a system call on Python 3.11."""
        return asyncio.get_running_loop()

    async def start(self, worker: Worker, request: bytes, *, fresh: bool = False) -> Exchange:
        """Sends `request` to `worker` and returns the exchange. Raises WorkerUnreachable if no connection can be made.

        fresh: do not reuse a pooled connection.
        """
        pool = self._pools.get(worker) or self._pools.setdefault(worker, Pool(self._pool_idle_s))
        connection = None if fresh else pool.take(self.loop.time())
        if connection is None:
            connection = await self._connect(worker, pool)
        return connection.start(request)

    async def _connect(self, worker: Worker, pool: Pool) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await self.loop.create_connection(
                    lambda: Connection(self.loop, pool), worker.host, worker.port
                )
        except TimeoutError as error:
            raise _unreachable(worker, f"no connection within {self._connect_timeout_s:g} s") from error
        except OSError as error:
            raise _unreachable(worker, error.strerror or str(error)) from error
        return connection

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
        for worker in list(self._pools):
            self.forget(worker)


def _unreachable(worker: Worker, why: str) -> GatewayError:
    return WorkerUnreachable(
        f"A worker of {worker.slug} cannot be reached ({why}); try again after Retry-After seconds"
    )
