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

from gateway import headers
from gateway.errors import GatewayError
from gateway.outbox import Outbox
from gateway.routes import Dialect, Route, without_slash

Headers = list[tuple[bytes, bytes]]
STATUS_LINES: Final = {
    code: f"HTTP/1.1 {code} {HTTPStatus(code).phrase if code in set(HTTPStatus) else ''}\r\n".encode()
    for code in range(100, 600)
}
LAST_CHUNK: Final = b"0\r\n\r\n"
MOST_DIGITS: Final = 18  # of a length: more say as much as these
FRAMING: Final = {
    (False, True): b"",
    (False, False): b"connection: close\r\n",
    (True, True): b"transfer-encoding: chunked\r\n",
    (True, False): b"transfer-encoding: chunked\r\nconnection: close\r\n",
}
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


class ClientRequest:
    """A request as its head comes in; `take` adds to its body."""

    __slots__ = (
        "_finished", "_head", "_outbox", "_parts", "_transport", "added", "arrived", "begun", "chunked", "early",
        "expects", "handler", "headers", "http_1_0", "keep_alive", "limit", "method", "over", "path", "refusal",
        "route", "size", "started", "target", "whole",
    )  # fmt: skip

    def __init__(
        self, transport: asyncio.Transport, outbox: Outbox, finished: Callable[[], None], route: Route | None,
        target: bytes, path: bytes, method: bytes, fields: Headers, http_1_0: bool, keep_alive: bool, arrived: float,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._outbox = outbox
        self._finished = finished
        self._parts: list[bytes] = []
        self._head = b""  # of the answer, while it waits for what goes out with it
        self.route = route
        self.target = target
        self.path = without_slash(path)
        self.method = method
        self.headers = fields
        self.http_1_0 = http_1_0
        self.keep_alive = keep_alive
        self.arrived = arrived
        self.limit = 0  # bytes of the body that are taken
        self.size = 0  # bytes of the body so far
        self.whole = False
        self.expects = False  # the client waits for `100 Continue`
        self.started = False
        self.early = False  # it is refused at once, though its body still comes
        self.refusal: GatewayError | None = None
        self.chunked = False  # the answer's body
        self.begun = False
        self.over = False
        self.added = b""  # header lines of the answer, whatever that is
        self.handler: Handler | None = None

    @property
    def dialect(self) -> Dialect:
        return Dialect.OPENAI if self.route is None else self.route.dialect

    @property
    def query(self) -> bytes:
        """The target's query with its question mark, or b""."""
        _, mark, query = self.target.partition(b"?")
        return mark + query

    def is_too_large(self) -> bool:
        """Whether its body is larger than is taken, by what has come or by the length that its head declares."""
        declared = headers.get(self.headers, b"content-length") or b"0"
        return self.size > self.limit or len(declared) > MOST_DIGITS or int(declared) > self.limit

    def take(self, data: bytes) -> None:
        """More of the body."""
        self.size += len(data)
        if self.refusal is None and not self.over:
            self._parts.append(data)

    def body(self) -> bytes:
        """The whole body, handed over."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def begin(self, status: int, fields: Headers) -> None:
        """Makes the head. It leaves with the first bytes behind it, in one system call, or with `flush`."""
        self.begun = True
        unframed = status in (204, 304) or headers.get(fields, b"content-length") is not None
        self.chunked = not (unframed or self.http_1_0)
        if not self.whole or (self.http_1_0 and not unframed):
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
        self.over = True
        self.handler = None
        self._parts = []
        self._finished()

    def _send(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        if not self._transport.is_closing():
            self._outbox.send(self._transport, data)

    def _reset(self) -> None:
        self._outbox.flush()
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
