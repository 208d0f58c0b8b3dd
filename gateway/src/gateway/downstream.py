"""A client's connection: the requests on it, and how long they may take to come.

httptools parses; requests are answered one after another, in their order.
"""

import asyncio
from collections import deque
from typing import Final, cast

import httptools

from gateway import guard
from gateway.door import Door
from gateway.errors import GatewayError, InvalidRequest, RequestTimeout
from gateway.request import ClientRequest, head_of
from gateway.routes import Dialect
from gateway.sockets import has_left, unacknowledged

WRITE_BUFFER_BYTES: Final = 4 * 1024  # of an answer, beyond what the kernel holds
LEAST_TAKEN: Final = 4 * 1024  # bytes a client must take of an answer in write_timeout_s
SLICE_BYTES: Final = 16 * 1024  # parsed at a time: as many requests as that holds may queue
SLOWEST_BODY: Final = 64 * 1024  # bytes a second that a body must bring once its time is over
MOST_FRAMED, MOST_FRAMED_TIMES = (
    64 * 1024,
    16,
)  # bytes around a body's chunks: so many, and so many times the body's
MOST_DISCARDED: Final = 8 * 1024 * 1024  # bytes behind a refusal that are read, so that the refusal can be
LINGER_S: Final = 2.0  # how long they are read
FIRST_S: Final = 1.0  # what a new connection gets for its first request when the gateway ends
Headers = list[tuple[bytes, bytes]]


class ClientConnection:
    """One client's connection: an asyncio.Protocol in all but name, which would keep it from being compiled whole."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._loop = door.loop
        self._is_new = True  # no request has come yet
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: Headers = []
        self._in_head = False  # a head has begun and is not whole
        self._head_bytes = 0
        self._expects = False
        self._paused = False  # nothing is read while requests are queued
        self._backlog = b""  # what had been read by then
        self._reading: ClientRequest | None = None  # whose body comes in
        self._running: ClientRequest | None = None  # whose answer is due
        self._queue: deque[ClientRequest] = deque()
        self._since = door.loop.time()  # when the head, the body or the silence began
        self._stuck: tuple[int, float] | None = None  # bytes the client has not taken, and since when
        self._framed = 0  # bytes of the body that comes in, with its chunks' frames and trailers
        self._is_last = False  # the request that came last is the last: what follows it is none
        self._discarded = -1  # bytes, once nothing is read as a request any more

    @property
    def busy(self) -> bool:
        return self._running is not None

    def look(self, now: float) -> None:
        """Ends what takes too long."""
        if self._running is not None and self._running.handler is not None:
            self._running.handler.look(now)
        if self.transport.is_closing() and self._stuck is None:  # until what is left has been taken
            self._stuck = self._untaken(), now
        if self._discarded >= 0:
            if now - self._since > LINGER_S:
                self.transport.abort()
        elif self._stuck is not None:
            self._look_at_writing(self._stuck, now)
        elif self._queue:
            self._look_for_leaving()
        else:
            self._look_at_reading(now - self._since)

    def close_when_idle(self) -> None:
        """Who has just connected, or sends a head, is no idle client: it could not know that this is the end."""
        if self._running is not None:
            self._running.keep_alive = False
        elif self._reading is None and not self._is_new and not self._in_head:
            self._close()

    def abort(self) -> None:
        self.transport.abort()

    def shut(self) -> None:
        """Ends the request that runs, and the connection."""
        if self._running is not None and self._running.handler is not None:
            self._running.handler.shut()
        self._close()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class, which inherits nothing
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._door.enter(self)

    def data_received(self, data: bytes) -> None:
        if self._discarded >= 0:
            self._discard(len(data))
        elif self._is_last:
            self._skip(len(data))
        elif self._queue or self._backlog:
            self._backlog += data
        else:
            self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.forget(self)
        running, self._running, self._reading, self._parser = self._running, None, None, None
        for request in self._queue:
            request.handler = None  # which knows the request: a circle
        self._queue.clear()
        self._backlog = b""
        if running is not None and running.handler is not None:
            handler, running.handler = running.handler, None
            handler.on_gone()

    def eof_received(self) -> None:
        """The client has left, also if it closes its sending side alone: the connection ends."""

    def pause_writing(self) -> None:
        self._stuck = self._untaken(), self._loop.time()
        if self._running is not None and self._running.handler is not None:
            self._running.handler.pause()

    def resume_writing(self) -> None:
        self._stuck = None
        if self._running is None:
            self._run_next()
        elif self._running.handler is not None:
            self._running.handler.resume()

    # the parser's callbacks

    def on_message_begin(self) -> None:
        self._url, self._headers, self._in_head, self._expects = b"", [], True, False
        if self._running is None:
            self._since = self._loop.time()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # a trailer: nothing of a request may stand there
            return
        name = name.lower()
        self._headers.append((name, value))
        if name == b"expect":
            self._expects = True

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser is None or self._discarded >= 0 or parser.should_upgrade() or self.transport.is_closing():
            return
        self._in_head, self._head_bytes, self._framed = False, 0, 0
        version = parser.get_http_version()
        problem = guard.problem(self._url, version, self._headers)
        if problem is not None:
            self._refuse(problem)
        else:
            self._enqueue(self._request(parser, version == "1.0"))

    def on_body(self, body: bytes) -> None:
        request = self._reading
        if request is None:
            return
        request.take(body)
        if request.size > request.limit and not request.early:
            self._refuse_early(request, guard.body_too_large(request.limit))

    def on_message_complete(self) -> None:
        if self._parser is None or self._parser.should_upgrade():
            return
        request, self._reading = self._reading, None
        self._is_last = request is not None and not self._parser.should_keep_alive()
        if request is not None and not request.over:
            request.whole = True
            self._run_next()

    # requests, one after another

    def _request(self, parser: httptools.HttpRequestParser, http_1_0: bool) -> ClientRequest:
        path = self._url.partition(b"?")[0]
        route = self._door.routes.find(path)
        if route is None:
            path = guard.plain_path(self._url)
            route = self._door.routes.find(path)
        return ClientRequest(
            self.transport, self._door.outbox, self._finished, route, self._url, path, parser.get_method(),
            self._headers, http_1_0, not http_1_0 and parser.should_keep_alive(), self._loop.time(),
        )  # fmt: skip

    def _enqueue(self, request: ClientRequest) -> None:
        self._reading, self._is_new = request, False
        request.expects = self._expects and not request.http_1_0
        self._door.prepare(request)
        self._queue.append(request)
        if request.is_too_large():
            self._refuse_early(request, guard.body_too_large(request.limit))
        request.early = request.early or (request.expects and request.refusal is not None)
        if self._running is None:
            self._run_next()
        if self._queue and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _run_next(self) -> None:
        """Takes the request whose turn it is; only for a client that reads.

        Who only asks, request behind request, gets no answer to keep for it.
        """
        if self._running is None and self._queue and self._stuck is None:
            self._running = self._queue.popleft()
        if self._paused and not self._queue and not self.transport.is_closing():
            self._read_on()
        if self._running is not None and not self._running.started:
            self._run(self._running)

    def _read_on(self) -> None:
        """No request waits any more."""
        if self._backlog:
            self._loop.call_soon(self._feed_backlog)
        else:
            self._paused = False
            self.transport.resume_reading()

    def _refuse_early(self, request: ClientRequest, error: GatewayError) -> None:
        """Its body is not waited for."""
        request.refusal, request.early = request.refusal or error, True
        self._run_next()

    def _refuse_garbled(self, error: GatewayError) -> None:
        """What came is no HTTP, be it a head, or the body of the request whose turn it is."""
        if self._is_last:
            return
        if self._reading is not None and self._reading is self._running and not self._running.started:
            self._refuse_early(self._reading, error)
        else:
            self._refuse(error)

    def _run(self, request: ClientRequest) -> None:
        if self._door.closing:
            request.keep_alive = False
        if request.refusal is not None and (request.whole or request.early):
            request.started = True
            if request.handler is not None:
                request.handler.fail(request.refusal)
        elif request.whole and request.refusal is None and request.handler is not None:
            request.started = True
            request.handler.start()
        elif request.expects and request.refusal is None:
            request.expects = False
            self._door.outbox.send(self.transport, b"HTTP/1.1 100 Continue\r\n\r\n")

    def _finished(self) -> None:
        """The running request is over."""
        request, self._running = self._running, None
        self._since = self._loop.time()
        if request is None or self.transport.is_closing():
            return
        if not request.keep_alive or self._door.closing:
            self._end(request)
        elif self._queue:
            self._loop.call_soon(self._run_next)

    def _end(self, request: ClientRequest) -> None:
        """After the last answer. What is still sent is read a while: a reset would take the answer away."""
        if request.whole:
            self._close()
        else:
            self._linger()

    def _refuse(self, error: GatewayError) -> None:
        """Answers what is no request, and reads no more. In the middle of another answer nothing can be said."""
        self._door.refused(error)
        if self._running is not None or self._queue or self._discarded >= 0:
            self.transport.abort()
            return
        route = self._door.routes.find(self._url.partition(b"?")[0])
        body = error.body(Dialect.OPENAI if route is None else route.dialect)
        fields = [*error.headers(), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        self._door.outbox.send(self.transport, head_of(error.status, fields) + body)
        self._linger()

    def _linger(self) -> None:
        """Says that no more answers come, and reads on a while: bytes that nobody reads would reset the connection."""
        self._discarded, self._since = 0, self._loop.time()
        self._door.outbox.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        self._door.outbox.flush()
        self.transport.close()

    def _skip(self, count: int) -> None:
        """Bytes behind a last request: they are read, so that no reset takes its answer away."""
        self._framed += count
        if self._framed > MOST_DISCARDED:
            self.transport.abort()

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > MOST_DISCARDED:
            self.transport.abort()

    # deadlines

    def _look_at_writing(self, stuck: tuple[int, float], now: float) -> None:
        """A client that has taken next to nothing for too long is cut off."""
        size = self._untaken()
        if stuck[0] - size >= LEAST_TAKEN:
            self._stuck = size, now
        elif now - stuck[1] > self._door.settings.write_timeout_s:
            self.transport.abort()

    def _untaken(self) -> int:
        """Bytes that the client has not acknowledged. The kernel's count: it lets more be written only once a third of
        its buffer, megabytes perhaps, is free, which a slow client takes minutes for."""
        return self.transport.get_write_buffer_size() + unacknowledged(
            self.transport.get_extra_info("socket")
        )

    def _look_for_leaving(self) -> None:
        """While requests are queued nothing is read, so a client's leaving is not seen either: the kernel knows it."""
        if has_left(self.transport.get_extra_info("socket")):
            self.transport.abort()

    def _look_at_reading(self, seconds: float) -> None:
        settings, body = self._door.settings, self._reading
        if self._in_head:
            if seconds > settings.head_timeout_s and self._running is None:
                self._refuse(
                    RequestTimeout(f"The request's head took more than {settings.head_timeout_s:g} s")
                )
        elif body is not None:
            if seconds > settings.body_timeout_s + body.size / SLOWEST_BODY:
                late = RequestTimeout(f"The request's body took more than {settings.body_timeout_s:g} s")
                self._refuse_early(body, late)
        elif self._running is None and seconds > (FIRST_S if self._door.closing else settings.keep_alive_s):
            self._close()

    def _feed(self, data: bytes) -> None:
        """Reads requests, but none behind one that waits: those stay bytes."""
        if len(data) <= SLICE_BYTES:
            self._parse(data)
            return
        at = 0
        while at < len(data) and not self._queue and self._discarded < 0:
            self._parse(data[at : at + SLICE_BYTES])
            at += SLICE_BYTES
        self._backlog = data[at:]

    def _feed_backlog(self) -> None:
        data, self._backlog = self._backlog, b""
        self._feed(data)
        self._run_next()

    def _parse(self, data: bytes) -> None:
        if self._reading is None:
            self._head_bytes += len(data)
        else:
            self._framed += len(data)
        try:
            while data:
                data = self._fed(data)
        except httptools.HttpParserError:
            self._refuse_garbled(InvalidRequest("The request is not HTTP/1.1 as it should be"))
        if self._in_head and self._head_bytes > guard.MOST_HEAD_BYTES:
            self._refuse(guard.head_too_large())
        elif (
            self._reading is not None and self._framed > MOST_FRAMED + MOST_FRAMED_TIMES * self._reading.size
        ):
            self._refuse_garbled(
                InvalidRequest("The request's chunks are mostly frames, extensions or trailers")
            )

    def _fed(self, data: bytes) -> bytes:
        """Feeds `data`; returns what is to be fed again. Raises HttpParserError.

        A request that asks for an upgrade is parsed again without that wish, as if it had none.
        """
        if self._parser is None or self._discarded >= 0:
            return b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            head = guard.without_upgrade(self._parser.get_method(), self._url, self._headers)
            self._parser = httptools.HttpRequestParser(self)
            return head + data[wish.args[0] :]
        return b""
