"""One request and its answer on one connection to a worker.

What comes is told to a `Receiver` as it comes, without a task or an object per chunk; `pause` stops reading from the
worker while the client does not keep up.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol, cast

from gateway.api.errors import BadWorkerResponse, WorkerDisconnected
from gateway.http.framing import BadFraming, Chunked, Framing
from gateway.http.headers import Headers
from gateway.http.states import ANSWERS, LINES, Answer, Line, changed
from gateway.http.write_coalescer import Parts, WriteCoalescer
from gateway.upstream.response_head import END, ResponseHead, check_beginning, read_response_head

RECEIVE_BYTES: Final = 32 * 1024  # asked of the kernel, which doubles it: the most that one read brings
MAX_INTERIMS: Final = 16  # before an answer
STALE_S: Final = 1.0  # a connection that the worker had closed is known for it within a round trip
JOINED_BYTES: Final = 64 * 1024  # a larger body is written behind its head, not copied to it


class StaleConnection(Exception):
    """A reused connection was closed by the worker before the first byte of its answer: send again on a new one."""


class Receiver(Protocol):
    """Who is told of an answer: head, any number of pieces, then end or failure, and nothing after one of these."""

    def on_head(self, *, alone: bool) -> None:
        """alone: no byte of the body has come with it."""
        ...

    def on_chunk(self, framed: bytes) -> None:
        """A piece of a chunked body that came as one whole chunk, with its frame."""
        ...

    def on_payload(self, data: bytes) -> None:
        """A piece of the body, without any frame."""
        ...

    def on_end(self) -> None: ...

    def on_failure(self, error: Exception) -> None: ...

    def on_fault(self, fault: Exception) -> None:
        """The gateway itself has failed at the answer, and gives it up."""
        ...


class Exchange:
    """One request and its answer on one connection."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._connection: Connection | None = None
        self._paused = False
        self.answer: Answer = Answer.AWAITED
        self.status = 0
        self.headers: Headers = []
        self.framing: Framing | None = None

    @property
    def over(self) -> bool:
        return self.answer > Answer.BEGUN

    @property
    def is_taken(self) -> bool:
        """Whether the worker has the whole request, and for so long that a lost connection is no stale one."""
        return self._connection is not None and self._connection.is_taken

    def _become(self, answer: Answer) -> None:
        self.answer = changed(ANSWERS, self.answer, answer)

    def pause(self) -> None:
        """Stops reading from the worker."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        self._paused = False
        if self._connection is not None:
            self._connection.resume()

    def cancel(self) -> None:
        """Gives it up, which frees the engine: the connection is closed, and the receiver hears no more."""
        if not self.over:
            self._become(Answer.GIVEN_UP)
            self._let_go()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()

    def run_on(self, connection: "Connection") -> None:
        self._connection = connection
        if self._paused:  # before there was a connection
            connection.pause()

    def fail(self, error: Exception) -> None:
        """Ends it with `error`."""
        if not self.over:
            self._become(Answer.FAILED)
            self._let_go()
            self._receiver.on_failure(error)

    def fault(self, fault: Exception) -> None:
        """The gateway itself has failed at this answer, perhaps at its very end."""
        self.cancel()
        self._receiver.on_fault(fault)

    def finish(self) -> None:
        """The answer is whole."""
        self._connection = None
        if not self.over:
            self._become(Answer.COMPLETE)
            self._receiver.on_end()

    def tell_head(self, head: ResponseHead, *, alone: bool) -> None:
        self._become(Answer.BEGUN)
        self.status, self.headers, self.framing = head.status, head.fields, head.framing
        self._receiver.on_head(alone=alone)

    def tell_chunk(self, framed: bytes) -> None:
        self._receiver.on_chunk(framed)

    def tell_payload(self, data: bytes) -> None:
        self._receiver.on_payload(data)


class Connection:
    """One TCP connection to a worker; carries one exchange at a time. keep: takes it when it can be used again; clock:
    in seconds.
    """

    def __init__(
        self, keep: "Callable[[Connection], None]", coalescer: WriteCoalescer, clock: Callable[[], float]
    ) -> None:
        self._keep = keep
        self._coalescer = coalescer
        self._clock = clock
        self._started = 0.0
        self._exchange: Exchange | None = None
        self._chunks: Chunked | None = None  # the exchange's framing, if it is this one
        self._head = b""  # as much of it as has come
        self._interims = 0
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._keep_alive = False
        self.line: Line = Line.NEW
        self.idle_since = 0.0
        self.reused = False  # it has been idle, so that the worker may have closed it

    def _become(self, line: Line) -> None:
        self.line = changed(LINES, self.line, line)

    @property
    def closed(self) -> bool:
        return self.line is Line.CLOSED or self._transport is None or self._transport.is_closing()

    @property
    def is_taken(self) -> bool:
        """Of the request that runs."""
        return self._is_sent() and self._clock() - self._started >= STALE_S

    def start(self, exchange: Exchange, head: bytes, body: Parts) -> None:
        """Sends a request. The connection must be open and idle."""
        assert self._transport is not None
        self._become(Line.ASKED)
        self._exchange, self._head, self._interims, self._started = exchange, b"", 0, self._clock()
        exchange.run_on(self)
        if len(body) == 1 and len(body[0]) < JOINED_BYTES:
            self._coalescer.send(self._transport, head + body[0])
        else:
            for part in (head, *body):
                self._coalescer.send(self._transport, part)

    def drop(self) -> None:
        """Closes; whoever waits for the exchange is not told."""
        self._exchange = None
        self.close()

    def close(self) -> None:
        if self.line is not Line.CLOSED:
            self._become(Line.CLOSED)
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if not self._paused and not self.closed and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.closed and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._become(Line.IDLE)
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, which inherits nothing
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        try:
            self._take(exchange, data)
        except Exception as fault:  # noqa: BLE001  # the boundary of one answer: whatever reads it stands behind this
            self._give_up(exchange, fault)

    def _take(self, exchange: Exchange | None, data: bytes) -> None:
        if exchange is None:
            self.close()  # a worker that speaks out of turn cannot be trusted with the next exchange
        elif self._chunks is not None and self._chunks.is_one_chunk(data):
            exchange.tell_chunk(data)
        elif self.line is Line.BODY and exchange.framing is not None:
            self._feed_body(exchange, exchange.framing, data)
        else:
            self._feed_head(exchange, data)

    def _give_up(self, exchange: Exchange | None, fault: Exception) -> None:
        """The gateway itself has failed: this connection carries nothing any more, and nobody blames the worker."""
        self.drop()
        if exchange is not None:
            exchange.fault(fault)

    def eof_received(self) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None:
        silent = self.line is Line.ASKED
        if self.line is not Line.CLOSED:
            self._become(Line.CLOSED)
        exchange, self._exchange, self._transport = self._exchange, None, None
        if exchange is not None:
            try:
                self._lose(exchange, silent, exc)
            except Exception as fault:  # noqa: BLE001  # likewise
                self._give_up(exchange, fault)

    def _lose(self, exchange: Exchange, silent: bool, exc: Exception | None) -> None:
        if exchange.framing is not None and exchange.framing.ends_with_connection() and exc is None:
            exchange.finish()
        elif silent and self.reused and self._clock() - self._started < STALE_S:
            exchange.fail(StaleConnection())
        else:
            exchange.fail(
                WorkerDisconnected("The worker closed the connection before its answer was complete")
            )

    # the answer's parts

    def _feed_head(self, exchange: Exchange, data: bytes) -> None:
        if self.line is Line.ASKED:
            self._become(Line.HEAD)
        try:
            head, rest = self._read_head(self._head + data if self._head else data)
        except BadFraming as error:
            exchange.fail(BadWorkerResponse(f"The worker's answer is not HTTP/1.1: {error}"))
            return
        if head is not None:
            self._go_on(exchange, head, rest)

    def _read_head(self, data: bytes) -> tuple[ResponseHead | None, bytes]:
        """A head that is none of an interim answer, which are passed over, and what came behind it; None until that has
        come. Raises BadFraming."""
        while (end := data.find(END) + len(END)) >= len(END):
            head, data = read_response_head(data[:end]), data[end:]
            if not head.is_interim:
                return head, data
            self._interims += 1
            if self._interims > MAX_INTERIMS:
                raise BadFraming("interim answers come and come")
        check_beginning(data)
        self._head = data
        return None, b""

    def _go_on(self, exchange: Exchange, head: ResponseHead, rest: bytes) -> None:
        """After a head, with the bytes that came behind it."""
        self._become(Line.BODY)
        self._keep_alive = head.keep_alive
        self._chunks = head.framing if isinstance(head.framing, Chunked) else None
        exchange.tell_head(head, alone=not rest)
        if not exchange.over:
            self._feed_body(exchange, head.framing, rest)

    def _feed_body(self, exchange: Exchange, framing: Framing, data: bytes) -> None:
        try:
            payload = framing.feed(data)
        except BadFraming as error:
            exchange.fail(BadWorkerResponse(f"The worker's answer is not HTTP/1.1: {error}"))
            return
        if payload:
            exchange.tell_payload(payload)
        if framing.complete and not exchange.over:
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        """Gives the connection back, to the pool if it can be used again, and tells the end."""
        assert exchange.framing is not None
        reusable = self._keep_alive and not exchange.framing.surplus and self._is_sent()
        self._exchange = self._chunks = None
        self.resume()
        if reusable and not self.closed:
            self._become(Line.IDLE)
            self._keep(self)
        else:
            self.close()
        exchange.finish()

    def _is_sent(self) -> bool:
        """Whether the worker has taken the whole request, and did not answer before its end."""
        return self._transport is not None and self._transport.get_write_buffer_size() == 0
