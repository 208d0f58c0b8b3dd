"""The client's connection: uvicorn's own protocol, on which proxied requests take a shorter way.

uvicorn parses, keeps connections alive, queues pipelined requests and drains. A request for a proxied route becomes a
`ClientRequest` in place of uvicorn's ASGI cycle: the answer's head and first bytes leave in one system call, later
bytes leave without waking a task, and a client that goes is noticed without a task that waits for it.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Container
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote_to_bytes

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway import headers
from gateway.errors import GatewayError, RequestTooLarge

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

NO_LINGER = struct.pack("ii", 1, 0)  # close with a reset
MOST_DIGITS = 19  # of a length: more say as much as these
LOOK_S = 0.25  # between two looks at a connection that is not read
TCP_INFO_BYTES = 1  # of which the first is the connection's state
LEFT = (7, 8)  # TCP_CLOSE and TCP_CLOSE_WAIT of the kernel's tcp_states.h
Headers = list[tuple[bytes, bytes]]
Serve = Callable[["ClientRequest"], Awaitable[None]]


class ClientGone(Exception):
    """The client closed its connection before the answer was complete."""


class Source(Protocol):
    """Where an answer's bytes come from; a client that reads slowly pauses it."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class ClientRequest:
    """One proxied request, and its answer: `begin`, any number of `write`, `end`. Without `end` it is broken off.

    uvicorn's protocol sees it as its own cycle: it sets `more_body`, `disconnected` and `keep_alive`, calls
    `message_event.set()` when one of them has changed, and reads `response_complete`.
    """

    def __init__(self, connection: "ClientConnection", path: bytes, version: str) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._http_1_0 = version == "1.0"
        self._expects_continue = connection.expect_100_continue and not self._http_1_0
        self._parts: list[bytes] = []
        self._size = 0
        self._chunked = False
        self._changed: asyncio.Future[None] | None = None
        self.path = path
        self.method: bytes = connection.parser.get_method()
        self.headers: Headers = connection.headers
        self.keep_alive = not self._http_1_0 and connection.parser.should_keep_alive()
        self.more_body = True
        self.disconnected = False
        self.response_complete = False
        self.begun = False
        self.on_gone: Callable[[], None] | None = None
        self.source: Source | None = None

    @property
    def message_event(self) -> "ClientRequest":
        return self

    async def run_asgi(self, serve: Serve) -> None:
        """What the request's task runs. An answer without its end is broken off, so that it never looks finished.

        It starts once the client reads: who only asks, request behind request, gets no answer to keep for it.
        """
        try:
            await self._connection.flow.drain()
            if not self.disconnected:
                await serve(self)
        finally:
            self._parts = []
            if not self.response_complete:
                self._break_off()

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises RequestTooLarge past `limit` bytes, ClientGone if the client leaves meanwhile."""
        declared = headers.get(self.headers, b"content-length")
        if declared is not None and int(declared[:MOST_DIGITS]) > limit:
            raise RequestTooLarge(f"The request body has more than {limit} bytes, the most that is taken")
        while self.more_body and self._size <= limit:
            await self._change()
        if self._size > limit:
            raise RequestTooLarge(f"The request body is larger than {limit} bytes, the most that is taken")
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def feed(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self.set()

    def set(self) -> None:
        """Something has changed."""
        if self.disconnected and self.on_gone is not None:
            self.on_gone()
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def begin(self, status: int, fields: Headers, data: bytes) -> None:
        """Sends the head and, in the same write, the first bytes."""
        self.begun = True
        if self._expects_continue and self.more_body:
            self.keep_alive = False  # whether the body still comes, nobody knows
        unframed = status in (204, 304) or headers.get(fields, b"content-length") is not None
        self._chunked = not (unframed or self._http_1_0)
        head = [STATUS_LINE[status]]
        for name, value in (*self._connection.server_state.default_headers, *fields):
            head += (name, b": ", value, b"\r\n")
        if self._chunked:
            head.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            head.append(b"connection: close\r\n")
        head.append(b"\r\n")
        if data and self.method != b"HEAD":
            head += chunk(data) if self._chunked else (data,)
        self._send(b"".join(head))

    def write(self, data: bytes) -> None:
        """Sends more of the body."""
        if self._chunked and data:
            data = b"".join(chunk(data))
        self._send(data)

    def end(self) -> None:
        if self._chunked:
            self._send(b"0\r\n\r\n")
        self.response_complete = True
        if not self.keep_alive:
            self._transport.close()
        self._connection.on_response_complete()

    def answer(self, error: GatewayError, *extra: tuple[bytes, bytes]) -> None:
        """The whole answer: `error` as status and OpenAI object."""
        body = error.body()
        length = (b"content-length", b"%d" % len(body))
        self.begin(error.status, [*error.headers(), length, *extra], body)
        self.end()

    async def _change(self) -> None:
        if self._expects_continue:
            self._expects_continue = False
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected:
            self._changed = self._connection.loop.create_future()
            await self._changed
        if self.disconnected:
            raise ClientGone

    def _send(self, data: bytes) -> None:
        if not self.disconnected and not self._transport.is_closing():
            self._transport.write(data)

    def _break_off(self) -> None:
        if self.begun and self._http_1_0:
            self._reset()  # an orderly close is how an answer of HTTP/1.0 ends
        elif self.begun or self.disconnected:
            self._transport.close()
        else:
            self.keep_alive = False
            self.answer(GatewayError("The gateway failed at this request; its log says how"))

    def _reset(self) -> None:
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._transport.abort()


class ClientConnection(HttpToolsProtocol):
    """One client's connection. Requests for `routes` go to `serve`, all others to uvicorn's ASGI application."""

    def __init__(self, routes: Container[bytes], serve: Serve, **of_uvicorn: Any) -> None:  # noqa: ANN401  # handed on
        super().__init__(**of_uvicorn)
        self._routes = routes
        self._serve = serve
        self._running: RequestResponseCycle | ClientRequest | None = None
        self._next_look: asyncio.TimerHandle | None = None

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def data_received(self, data: bytes) -> None:
        """Feeds the parser; a request that asks for an upgrade is parsed again without that wish, as if it had none."""
        self._unset_keepalive_if_required()
        try:
            while data:
                data = self._fed(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def send_400_response(self, msg: str) -> None:
        """In the middle of another answer nothing can be said."""
        if self._running is None or self._running.response_complete:
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        path = self.url.partition(b"?")[0]
        if path not in self._routes:
            path = plain_path(self.url)
        if path in self._routes:
            self._take(ClientRequest(self, path, self.parser.get_http_version()))
        else:
            self._leave_to_uvicorn()

    def on_body(self, body: bytes) -> None:
        if not isinstance(self.cycle, ClientRequest):
            super().on_body(body)
        elif not self.cycle.response_complete:
            self.cycle.feed(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """uvicorn reads on; with requests still queued, a client that does not read would queue ever more."""
        super().on_response_complete()
        if self.pipeline and not self.transport.is_closing():
            self.flow.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn tells the newest request only; with pipelined ones behind it, the one that runs is another."""
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self._running = self.cycle = None  # type: ignore[assignment]  # circles, left to the garbage collector
        self.pipeline.clear()

    def pause_writing(self) -> None:
        super().pause_writing()
        if isinstance(self._running, ClientRequest) and self._running.source is not None:
            self._running.source.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if isinstance(self._running, ClientRequest) and self._running.source is not None:
            self._running.source.resume()

    def _take(self, request: Any) -> None:  # noqa: ANN401  # a ClientRequest, which looks like uvicorn's cycle
        before, self.cycle = self.cycle, request
        serve: Any = self._serve
        if before is None or before.response_complete:
            self._start_asgi_task(request, serve)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((request, serve))
            self._look_later()

    def _look_later(self) -> None:
        if self._next_look is None:
            self._next_look = self.loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """While requests are queued nothing is read, so a client's leaving is not seen either: the kernel knows it."""
        self._next_look = None
        if self.transport.is_closing():
            return
        if has_left(self.transport.get_extra_info("socket")):
            self.transport.abort()
        elif self.pipeline:
            self._look_later()

    def _fed(self, data: bytes) -> bytes:
        """Feeds `data`; returns what is to be fed again. Raises HttpParserError."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            head = without_upgrade(self.parser.get_method(), self.url, self.headers)
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
            return head + data[wish.args[0] :]
        return b""

    def _leave_to_uvicorn(self) -> None:
        url, fields, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, fields, expects
        self.scope["headers"] = fields
        super().on_headers_complete()
        if self.pipeline:
            self._look_later()

    def _start_asgi_task(self, cycle: "RequestResponseCycle", app: "ASGI3Application") -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)


def has_left(connection: socket.socket) -> bool:
    """Whether the peer has closed its side. Linux's own answer, which does not wait for the bytes before the end."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)[0] in LEFT


def chunk(data: bytes) -> tuple[bytes, bytes, bytes]:
    """The parts of one chunk of a chunked body; `data` must not be empty, since that is the end's sign."""
    return b"%x\r\n" % len(data), data, b"\r\n"


def plain_path(target: bytes) -> bytes:
    """The path of a request's target in its plain form, decoded, whatever the client has spelt around it."""
    return unquote_to_bytes(httptools.parse_url(target).path or b"")


def without_upgrade(method: bytes, target: bytes, fields: Headers) -> bytes:
    """The head of a request without its wish to change the protocol. Raises HttpParserError if that was its purpose."""
    kept = [(name, value) for name, value in fields if name not in (b"upgrade", b"connection")]
    if len(kept) == len(fields):
        raise httptools.HttpParserError(f"{method!r} asks for a tunnel")
    if any(name == b"connection" and b"close" in value.lower() for name, value in fields):
        kept.append((b"connection", b"close"))
    lines = [b"%b %b HTTP/1.1" % (method, target), *(b"%b: %b" % field for field in kept)]
    return b"\r\n".join([*lines, b"", b""])
