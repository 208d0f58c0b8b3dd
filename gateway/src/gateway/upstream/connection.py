"""A connection to a worker, and an exchange: one request and its answer on it.

The answer goes to a `Receiver` as it arrives, by plain calls in the event loop: no task or object per chunk.
`Exchange.pause` stops reading from the worker while the client is slow to read."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol, cast

from gateway.api.errors import BadWorkerResponse, WorkerDisconnected
from gateway.http.framing import BadFraming, Chunked, Framing
from gateway.http.headers import Headers
from gateway.http.states import ANSWERS, UPSTREAM_STATES, AnswerState, UpstreamState, changed
from gateway.http.write_coalescer import Parts, WriteCoalescer
from gateway.upstream.response_head import END, ResponseHead, check_beginning, read_response_head

RECEIVE_BYTES: Final = 32 * 1024  # the socket's receive buffer (the kernel doubles it), which bounds one read
MAX_INTERIMS: Final = 16  # interim (1xx) answers before the final one
STALE_S: Final = 1.0  # seconds; a close this soon after sending means that the worker had closed before
JOINED_BYTES: Final = 64 * 1024  # a body this large is written after its head, not joined with it


class StaleConnection(Exception):
    """The worker closed a reused connection before the first byte of the answer: send again on a new connection."""


class Receiver(Protocol):
    """Whoever takes an answer, in `proxy/`. Called in the event loop: on_head, any number of on_chunk and on_payload,
    then on_end; or on_failure instead (StaleConnection or a GatewayError). on_fault may come even after those."""

    def on_head(self, *, alone: bool) -> None:
        """Take the head: `Exchange.status`, `headers` and `framing` are set. alone: no body byte arrived with it."""

    def on_chunk(self, framed: bytes) -> None:
        """Take one whole chunk of a chunked body, still with its framing, so that it can be relayed as it is."""

    def on_payload(self, data: bytes) -> None:
        """Take a piece of the body's payload, without framing."""

    def on_end(self) -> None:
        """End the request: the answer is complete."""

    def on_failure(self, error: Exception) -> None:
        """Retry the request or end it: no more of an answer comes, for `error`. A connection, if any, is closed."""

    def on_fault(self, fault: Exception) -> None:
        """End the request: a bug in the gateway raised `fault` while handling the answer. No failure of the worker."""


class Exchange:
    """One request and its answer on one connection; `Upstream.start` returns it, and the connection reports the answer
    to it. status, headers and framing are of the answer, set before `Receiver.on_head`."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._connection: WorkerConnection | None = None
        self._paused = False  # may be set before there is a connection
        self.answer: AnswerState = AnswerState.AWAITED
        self.status = 0
        self.headers: Headers = []
        self.framing: Framing | None = None

    @property
    def over(self) -> bool:
        """Whether the answer is complete, failed or was given up."""
        return self.answer > AnswerState.BEGUN

    @property
    def is_taken(self) -> bool:
        """Whether the request is wholly written and was sent STALE_S ago: no StaleConnection can ask for it again."""
        return self._connection is not None and self._connection.is_taken

    def _become(self, answer: AnswerState) -> None:
        self.answer = changed(ANSWERS, self.answer, answer)

    def pause(self) -> None:
        """Stop reading from the worker until `resume`: the client is slow. Also holds for a connection yet to come."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read from the worker again: the client has taken what it was sent."""
        self._paused = False
        if self._connection is not None:
            self._connection.resume()

    def cancel(self) -> None:
        """Give the answer up: close the connection, so that vLLM aborts the request. The receiver is called no more."""
        if not self.over:
            self._become(AnswerState.GIVEN_UP)
            self._drop_connection()

    def _drop_connection(self) -> None:
        """Close the connection, if there is one yet; it does not call this exchange any more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()

    def run_on(self, connection: "WorkerConnection") -> None:
        """Note the connection that carries this exchange, and pause it if asked before; its `start` calls this."""
        self._connection = connection
        if self._paused:
            connection.pause()

    def fail(self, error: Exception) -> None:
        """Close the connection and call the receiver's on_failure with `error`, unless the exchange is over."""
        if not self.over:
            self._become(AnswerState.FAILED)
            self._drop_connection()
            self._receiver.on_failure(error)

    def fault(self, fault: Exception) -> None:
        """Cancel, and pass a bug of the gateway itself to the receiver's on_fault, even if the answer is complete."""
        self.cancel()
        self._receiver.on_fault(fault)

    def finish(self) -> None:
        """Let go of the connection, which may run another one now, and call on_end, unless the exchange is over."""
        self._connection = None
        if not self.over:
            self._become(AnswerState.COMPLETE)
            self._receiver.on_end()

    def tell_head(self, head: ResponseHead, *, alone: bool) -> None:
        """Note the final head, and call the receiver's on_head. alone: no byte of the body came with it."""
        self._become(AnswerState.BEGUN)
        self.status, self.headers, self.framing = head.status, head.fields, head.framing
        self._receiver.on_head(alone=alone)

    def tell_chunk(self, framed: bytes) -> None:
        self._receiver.on_chunk(framed)

    def tell_payload(self, data: bytes) -> None:
        self._receiver.on_payload(data)


class WorkerConnection:
    """One TCP connection to a worker; carries one exchange at a time. keep: called with this connection when an
    exchange has ended and the connection can be reused; clock: returns seconds. It has asyncio.Protocol's methods
    without inheriting it, so that mypyc can compile it as a native class."""

    def __init__(
        self, keep: "Callable[[WorkerConnection], None]", coalescer: WriteCoalescer, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._keep = keep
        self._coalescer = coalescer
        self._clock = clock
        self._started = 0.0  # when the running exchange was sent
        self._exchange: Exchange | None = None
        self._chunks: Chunked | None = None  # the answer's framing if it is chunked, else None
        self._head = b""  # the beginning of a head that is not complete
        self._interims = 0  # interim answers of this exchange
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._keep_alive = False
        self.state: UpstreamState = UpstreamState.NEW
        self.idle_since = 0.0
        self.reused = False  # whether it was idle before, so that the worker may have closed it meanwhile

    def _become(self, state: UpstreamState) -> None:
        self.state = changed(UPSTREAM_STATES, self.state, state)

    @property
    def closed(self) -> bool:
        """Whether it cannot carry a request: it is not open yet, or closing, or closed."""
        return self.state is UpstreamState.CLOSED or self._transport is None or self._transport.is_closing()

    @property
    def is_taken(self) -> bool:
        """Whether the running request is wholly written and was sent at least STALE_S ago."""
        return self._is_sent() and self._clock() - self._started >= STALE_S

    def start(self, exchange: Exchange, head: bytes, body: Parts) -> None:
        """Send `head` and `body` as the request of `exchange`: in one piece if small. Only while open and idle."""
        assert self._transport is not None
        self._become(UpstreamState.ASKED)
        self._exchange, self._head, self._interims, self._started = exchange, b"", 0, self._clock()
        exchange.run_on(self)
        if len(body) == 1 and len(body[0]) < JOINED_BYTES:
            self._coalescer.send(self._transport, head + body[0])
        else:
            for part in (head, *body):
                self._coalescer.send(self._transport, part)

    def drop(self) -> None:
        """Close the connection without calling the exchange any more: its request is over, or a bug ended it."""
        self._exchange = None
        self.close()

    def close(self) -> None:
        """Close the connection at once, unsent bytes or not, so that vLLM aborts the request. May be called again."""
        if self.state is not UpstreamState.CLOSED:
            self._become(UpstreamState.CLOSED)
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Stop reading, so that TCP slows the worker down; no effect if the connection is closed."""
        if not self._paused and not self.closed and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.closed and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._become(UpstreamState.IDLE)
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, which inherits nothing
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        try:
            self._take(exchange, data)
        except Exception as fault:  # noqa: BLE001  # the boundary of one answer: a bug in any receiver ends here
            self._handle_fault(exchange, fault)

    def _take(self, exchange: Exchange | None, data: bytes) -> None:
        """Parse received bytes as head or body; relay bytes that are exactly one chunk, as most are, unparsed."""
        if exchange is None:
            self.close()  # bytes that no request asked for could be taken for the next answer
        elif self._chunks is not None and self._chunks.is_one_chunk(data):
            exchange.tell_chunk(data)
        elif self.state is UpstreamState.BODY and exchange.framing is not None:
            self._feed_body(exchange, exchange.framing, data)
        else:
            self._feed_head(exchange, data)

    def _handle_fault(self, exchange: Exchange | None, fault: Exception) -> None:
        """Close the connection and pass a bug of the gateway to the exchange; the worker is not blamed for it."""
        self.drop()
        if exchange is not None:
            exchange.fault(fault)

    def eof_received(self) -> None: ...  # None: asyncio closes the connection

    def pause_writing(self) -> None: ...  # the whole request is in memory: nothing to hold back

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange, if one still runs. asyncio calls this once for each connection, also after `close`."""
        silent = self.state is UpstreamState.ASKED
        if self.state is not UpstreamState.CLOSED:
            self._become(UpstreamState.CLOSED)
        exchange, self._exchange, self._transport = self._exchange, None, None
        if exchange is not None:
            try:
                self._end_lost(exchange, silent, exc)
            except Exception as fault:  # noqa: BLE001  # as in data_received
                self._handle_fault(exchange, fault)

    def _end_lost(self, exchange: Exchange, silent: bool, exc: Exception | None) -> None:
        """End the exchange of a lost connection: complete, stale or failed. silent: no byte of the answer arrived; exc:
        the socket's error, None if the worker closed it in order."""
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
        """Parse `data` as more of the answer's head, and the bytes after it as body; fail the exchange on bad bytes."""
        if self.state is UpstreamState.ASKED:
            self._become(UpstreamState.HEAD)
        try:
            head, rest = self._read_head(self._head + data if self._head else data)
        except BadFraming as error:
            exchange.fail(BadWorkerResponse(f"The worker's answer is not HTTP/1.1: {error}"))
            return
        if head is not None:
            self._start_body(exchange, head, rest)

    def _read_head(self, data: bytes) -> tuple[ResponseHead | None, bytes]:
        """Skip interim answers; return the final head and the bytes after it. If it is incomplete, keep what came of it
        in `_head` and return (None, b""). Raises BadFraming."""
        while (end := data.find(END) + len(END)) >= len(END):  # less: not found
            head, data = read_response_head(data[:end]), data[end:]
            if not head.is_interim:
                return head, data
            self._interims += 1
            if self._interims > MAX_INTERIMS:
                raise BadFraming(f"it has more than {MAX_INTERIMS} interim (1xx) answers")
        check_beginning(data)
        self._head = data
        return None, b""

    def _start_body(self, exchange: Exchange, head: ResponseHead, rest: bytes) -> None:
        """Pass a complete head to the exchange, then feed it `rest`, the bytes that arrived with the head."""
        self._become(UpstreamState.BODY)
        self._keep_alive = head.keep_alive
        self._chunks = head.framing if isinstance(head.framing, Chunked) else None
        exchange.tell_head(head, alone=not rest)
        if not exchange.over:  # the receiver may have cancelled it
            self._feed_body(exchange, head.framing, rest)  # even b"": an empty body is complete

    def _feed_body(self, exchange: Exchange, framing: Framing, data: bytes) -> None:
        """Pass the payload in `data` to the exchange, and end the exchange with the body; fail it on bad framing."""
        try:
            payload = framing.feed(data)
        except BadFraming as error:
            exchange.fail(BadWorkerResponse(f"The worker's answer is not HTTP/1.1: {error}"))
            return
        if payload:
            exchange.tell_payload(payload)
        if framing.complete and not exchange.over:  # over: the receiver has cancelled it
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        """Finish the exchange; keep the connection unless the worker will close it or bytes of either side are left."""
        assert exchange.framing is not None
        reusable = self._keep_alive and not exchange.framing.surplus and self._is_sent()
        self._exchange = self._chunks = None
        self.resume()  # the client may have been slow to read this answer
        if reusable and not self.closed:
            self._become(UpstreamState.IDLE)
            self._keep(self)  # before `finish`, which may start a queued request: that can reuse it
        else:
            self.close()
        exchange.finish()

    def _is_sent(self) -> bool:
        """Whether the whole request has left our buffer for the kernel; if not, the worker answered early."""
        return self._transport is not None and self._transport.get_write_buffer_size() == 0
