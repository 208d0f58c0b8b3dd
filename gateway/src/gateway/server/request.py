"""One client's request, and its answer: `begin`, any number of `write`, `end`.

Without `end` the answer is broken off, so that it never looks finished.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Protocol

from gateway.api.errors import GatewayError
from gateway.api.routes import Dialect, Route, without_slash
from gateway.body.budget import BodyBudget, no_room, too_large
from gateway.http import headers
from gateway.http.headers import Headers
from gateway.http.states import STAGES, Stage, changed
from gateway.http.write_coalescer import WriteCoalescer
from gateway.server.request_head import Head

STATUS_LINES: Final = {
    code: f"HTTP/1.1 {code} {HTTPStatus(code).phrase if code in set(HTTPStatus) else ''}\r\n".encode()
    for code in range(100, 600)
}
LAST_CHUNK: Final = b"0\r\n\r\n"
FRAMING: Final = {
    (False, True): b"",
    (False, False): b"connection: close\r\n",
    (True, True): b"transfer-encoding: chunked\r\n",
    (True, False): b"transfer-encoding: chunked\r\nconnection: close\r\n",
}
EXPECTING: Final = Stage.EXPECTING
ARRIVING: Final = Stage.ARRIVING
WHOLE: Final = Stage.WHOLE
REFUSED: Final = Stage.REFUSED
RUNNING: Final = Stage.RUNNING
ANSWERING: Final = Stage.ANSWERING
OVER: Final = Stage.OVER
BLOCK_BYTES: Final = 64 * 1024  # of a body that comes in small pieces
SMALL_PIECE: Final = 4 * 1024
NO_LINGER: Final = struct.pack("ii", 1, 0)  # close with a reset


class Handler(Protocol):
    """Who answers a request."""

    def start(self) -> None:
        """The body is whole."""
        ...

    def on_gone(self) -> None:
        """The client has left: nothing can be said any more."""
        ...

    def look(self, now: float) -> None:
        """Called several times a second, for deadlines. now: seconds of the loop's clock."""
        ...

    def fail(self, error: GatewayError) -> None:
        """The request is refused before it starts."""
        ...

    def shut(self) -> None:
        """The gateway ends, and so must the answer."""
        ...

    def pause(self) -> None:
        """The client does not keep up."""
        ...

    def resume(self) -> None: ...


class Body:
    """A body in few pieces, however small those are in which it comes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._block: bytearray | None = None

    def add(self, data: bytes) -> None:
        if len(data) >= SMALL_PIECE or not (self._pieces or self._block):
            self._close_block()
            self._pieces.append(data)
            return
        if self._block is None:
            self._block = bytearray()
        self._block += data
        if len(self._block) >= BLOCK_BYTES:
            self._close_block()

    def parts(self) -> list[bytes]:
        """All of it, handed over."""
        self._close_block()
        pieces, self._pieces = self._pieces, []
        return pieces

    def drop(self) -> None:
        self._pieces, self._block = [], None

    def _close_block(self) -> None:
        if self._block:
            self._pieces.append(bytes(self._block))
            self._block = None


class ClientRequest:
    """A request as its head comes in; `take` adds to its body. limit: bytes of the body that are taken; size: how many
    have come; refusal: why it is refused, which its handler tells when its turn has come.
    """

    def __init__(
        self, transport: asyncio.Transport, coalescer: WriteCoalescer, budget: BodyBudget, finished: Callable[[], None],
        head: Head, route: Route | None, path: bytes, arrived: float,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._coalescer = coalescer
        self._budget = budget
        self._finished = finished
        self._stage: Stage = EXPECTING if head.expects else ARRIVING
        self._body = Body()
        self._held = 0  # bytes of the budget
        self._head = b""  # of the answer, while it waits for what goes out with it
        self.route = route
        self.target = head.target
        self.path = without_slash(path)
        self.method = head.method
        self.headers = head.fields
        self.http_1_0 = head.http_1_0
        self.keep_alive = head.keep_alive
        self.length = head.length  # 0 if it is not known
        self.arrived = arrived
        self.limit = 0
        self.size = 0
        self.refusal: GatewayError | None = None
        self.chunked = False  # the answer's body
        self.added = b""  # header lines of the answer, whatever that is
        self.handler: Handler | None = None

    # what it is

    @property
    def dialect(self) -> Dialect:
        return Dialect.OPENAI if self.route is None else self.route.dialect

    @property
    def query(self) -> bytes:
        """The target's query with its question mark, or b""."""
        _, mark, query = self.target.partition(b"?")
        return mark + query

    @property
    def begun(self) -> bool:
        """Whether the answer's head is made, so that an error can be no status any more."""
        return self._stage >= ANSWERING

    @property
    def over(self) -> bool:
        return self._stage is OVER

    # the body

    @property
    def awaits_body(self) -> bool:
        return self._stage <= ARRIVING

    def expect(self) -> None:
        """Has the client send the body that it holds back until it is asked for it."""
        if self._stage is EXPECTING:
            self._become(ARRIVING)
            self._coalescer.send(self._transport, b"HTTP/1.1 100 Continue\r\n\r\n")

    def claim(self, more: int) -> None:
        """Takes `more` bytes of what all bodies may hold, until `let_go`. Raises Overloaded."""
        if self.over:
            return
        if not self._budget.take(more, self._held, self.length):
            raise no_room()
        self._held += more

    def take(self, data: bytes) -> None:
        """More of the body. Raises GatewayError."""
        if self._stage is EXPECTING:
            self._become(ARRIVING)
        elif self._stage is not ARRIVING:
            return
        self.size += len(data)
        if self.size > self.limit:
            raise too_large(self.limit)
        self.claim(len(data))
        self._body.add(data)

    def complete(self) -> None:
        """The body is whole."""
        if self.awaits_body:
            self._become(WHOLE)

    def refuse_early(self, error: GatewayError) -> None:
        """It is refused before its body is whole, which is not awaited."""
        self.refusal = self.refusal or error
        self._become(REFUSED)
        self.keep_alive = False
        self.let_go()

    def body(self) -> bytes:
        """The whole body, handed over."""
        parts = self._body.parts()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def body_parts(self) -> list[bytes]:
        """The whole body as it came, handed over: to put a large one together takes a while."""
        return self._body.parts()

    def let_go(self) -> None:
        """Nobody holds its body any more."""
        self._budget.give(self._held, self.length)
        self._held = 0
        self._body.drop()

    # its life

    def run(self) -> None:
        """Has its handler answer it."""
        handler, refusal = self.handler, self.refusal
        self._become(RUNNING)
        if handler is None:
            return
        if refusal is None:
            handler.start()
        else:
            handler.fail(refusal)

    def leave(self) -> None:
        """The client has left."""
        handler, self.handler = self.handler, None
        self._end()
        if handler is not None:
            handler.on_gone()

    # the answer

    def begin(self, status: int, fields: Headers) -> None:
        """Makes the head. It leaves with the first bytes behind it, in one system call, or with `flush`."""
        if self._stage < WHOLE or self._stage is REFUSED:
            self.keep_alive = False
        self._become(ANSWERING)
        unframed = status in (204, 304) or headers.get(fields, b"content-length") is not None
        self.chunked = not (unframed or self.http_1_0)
        if self.http_1_0 and not unframed:
            self.keep_alive = False
        self._head = head_of(status, fields, FRAMING[self.chunked, self.keep_alive] + self.added)

    def write(self, data: bytes) -> None:
        """Sends more of the body."""
        if data and self.method != b"HEAD":
            self._send(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def write_framed(self, chunk: bytes) -> None:
        """Sends one whole chunk that has its frame; `chunked` must be true."""
        self._send(chunk)

    def flush(self) -> None:
        """Sends the head if it still waits."""
        if self._head:
            self._send(b"")

    def end(self) -> None:
        if self.chunked and self.method != b"HEAD":
            self._send(LAST_CHUNK)
        self.flush()
        self._over()

    def break_off(self) -> None:
        """Ends the connection without an end of the answer."""
        self.keep_alive = False
        self.flush()
        if self.http_1_0:  # an orderly close is how an answer of HTTP/1.0 ends
            self._reset()
        self._over()

    def refuse(self, error: GatewayError, fields: Headers) -> None:
        """The whole answer: `error` as a status, and an object in the route's dialect."""
        body = error.body(self.dialect)
        self.begin(error.status, [*error.headers(), (b"content-length", b"%d" % len(body)), *fields])
        self.write(body)
        self.flush()
        self._over()

    def _over(self) -> None:
        self.handler = None
        self._end()
        self._finished()

    def _end(self) -> None:
        if self._stage is not OVER:
            self._become(OVER)
        self.let_go()

    def _become(self, stage: Stage) -> None:
        self._stage = changed(STAGES, self._stage, stage)

    def _send(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        if not self._transport.is_closing():
            self._coalescer.send(self._transport, data)

    def _reset(self) -> None:
        self._coalescer.flush()
        if not self._transport.is_closing():
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER
            )
            self._transport.abort()


def head_of(status: int, fields: Headers, framing: bytes = b"") -> bytes:
    """A response's head. framing: header lines that are ready."""
    head = [STATUS_LINES[status], http_date(int(time.time()))]
    for name, value in fields:
        head += (name, b": ", value, b"\r\n")
    head += (framing, b"\r\n")
    return b"".join(head)


@lru_cache(maxsize=2)
def http_date(second: int) -> bytes:
    """The header line `date` of a moment, in seconds since 1970."""
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()
