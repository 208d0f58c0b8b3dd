"""One client's request: its body as it arrives, and its answer: `begin`, any number of `write`, then `end`.
An answer without `end` is broken off by `break_off`, so that the client never takes it for complete."""

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
FRAMING: Final = {  # header lines, by (chunked, keep_alive)
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
BLOCK_BYTES: Final = 64 * 1024  # small pieces of a body are joined into blocks of this size
SMALL_PIECE: Final = 4 * 1024  # bytes; a smaller piece of a body is small
NO_LINGER: Final = struct.pack("ii", 1, 0)  # SO_LINGER with 0 seconds: closing sends a reset


class Handler(Protocol):
    """Whoever answers a request: `proxy/` or the ASGI bridge. All calls come from the event loop and must not block."""

    def start(self) -> None:
        """Begin to answer: the body is whole. Called at most once, not after `fail`, `on_gone` or `end_at_shutdown`."""

    def on_gone(self) -> None:
        """Stop all work: the client has left, and no answer can be sent any more. May come before `start`."""

    def check_deadlines(self, now: float) -> None:
        """End the request if it is late; called four times a second, also before `start`. now: loop time in seconds."""

    def fail(self, error: GatewayError) -> None:
        """Answer `error`, or break the answer off if it has begun. Called instead of `start`, or on a bug later."""

    def end_at_shutdown(self) -> None:
        """End the request at once: the drain period (`GATEWAY_DRAIN_S`) has passed. Send an error if the client can
        still be told; the connection is closed after this. May come before `start`."""

    def pause(self) -> None:
        """Stop writing until `resume`: the client is slow to read."""

    def resume(self) -> None:
        """Write again: the client has taken what was written."""


class BodyPieces:
    """A body as a list of pieces; small ones are joined into blocks, since many tiny objects would take much memory."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._block: bytearray | None = None  # small pieces being joined

    def add(self, data: bytes) -> None:
        """Append a piece: the first one (often the only one) or a large one without a copy, any other to the block."""
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
        """Return all pieces in order, and forget them."""
        self._close_block()
        pieces, self._pieces = self._pieces, []
        return pieces

    def drop(self) -> None:
        """Forget all pieces: the body is not needed any more. Those that `parts` gave out belong to its caller."""
        self._pieces, self._block = [], None

    def _close_block(self) -> None:
        """Make the block, if there is one, a piece: it is full, or the next piece is not joined to it."""
        if self._block:
            self._pieces.append(bytes(self._block))
            self._block = None


class ClientRequest:
    """A request, from its complete head to the end of its answer. Its connection feeds it, and its handler answers it.
    limit: bytes of the largest body accepted; size: bytes received; refusal: the error to answer instead of starting.
    finished: called when the answer has ended, but not if the client leaves."""

    def __init__(
        self, transport: asyncio.Transport, coalescer: WriteCoalescer, budget: BodyBudget, finished: Callable[[], None],
        head: Head, route: Route | None, path: bytes, arrived: float,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._coalescer = coalescer
        self._budget = budget
        self._finished = finished
        self._stage: Stage = EXPECTING if head.expects else ARRIVING
        self._body = BodyPieces()
        self._held = 0  # bytes charged to the body budget
        self._unsent_head = b""  # the answer's head, until it is sent with the first body bytes
        self.route = route
        self.target = head.target
        self.path = without_slash(path)
        self.method = head.method
        self.headers = head.fields
        self.http_1_0 = head.http_1_0
        self.keep_alive = head.keep_alive
        self.length = head.length  # Content-Length; 0 if there is none
        self.arrived = arrived  # loop time in seconds when the head was complete
        self.limit = 0
        self.size = 0
        self.refusal: GatewayError | None = None
        self.chunked = False  # whether the answer's body is sent in chunks
        self.added = b""  # header lines added to every answer (CORS)
        self.handler: Handler | None = None

    @property
    def dialect(self) -> Dialect:
        """The API in whose format errors are written: the route's, or OpenAI's if the path has no route."""
        return Dialect.OPENAI if self.route is None else self.route.dialect

    @property
    def query(self) -> bytes:
        """The target's query with its question mark, or b"" without one: part of a stored response's target."""
        _, mark, query = self.target.partition(b"?")
        return mark + query

    @property
    def begun(self) -> bool:
        """Whether the answer's status is fixed (or the request over), so that an error can no longer be the status."""
        return self._stage >= ANSWERING

    @property
    def over(self) -> bool:
        """Whether the answer has ended or the client has left: nothing more can be sent."""
        return self._stage is OVER

    # the body

    @property
    def awaits_body(self) -> bool:
        """Whether the body has not ended and is not refused: an error is then answered without waiting for its end."""
        return self._stage <= ARRIVING

    def expect(self) -> None:
        """Send `100 Continue` if the client waits for that with the body. Called when the head is accepted."""
        if self._stage is EXPECTING:
            self._become(ARRIVING)
            self._coalescer.send(self._transport, b"HTTP/1.1 100 Continue\r\n\r\n")

    def claim(self, more: int) -> None:
        """Charge `more` bytes, received or decoded, to the body budget until `let_go`. Raises Overloaded if full."""
        if self.over:  # nothing would give the bytes back
            return
        if not self._budget.take(more, self._held, self.length):
            raise no_room()
        self._held += more

    def add_to_body(self, data: bytes) -> None:
        """Add received payload to body and budget, unless refused. Raises RequestTooLarge or Overloaded."""
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
        """Mark the body as complete, unless the request is refused already."""
        if self.awaits_body:
            self._become(WHOLE)

    def refuse_early(self, error: GatewayError) -> None:
        """Mark the request as refused with `error` before its body is complete, and drop the body. `run` answers."""
        self.refusal = self.refusal or error  # that of `Listener.prepare` comes first
        self._become(REFUSED)
        self.keep_alive = False
        self.let_go()

    def body(self) -> bytes:
        """Return the whole body and forget it. Joins the pieces, which blocks long for a large one: see body_parts."""
        parts = self._body.parts()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def body_parts(self) -> list[bytes]:
        """Return the body's pieces in order and forget them, so that a thread can join them."""
        return self._body.parts()

    def let_go(self) -> None:
        """Drop the body and return its bytes to the budget: at the end, or once it is not to be sent (again)."""
        self._budget.give(self._held, self.length)
        self._held = 0
        self._body.drop()

    # its handler

    def run(self) -> None:
        """Start the handler, or have it answer the refusal. Called once, when the body is complete or refused."""
        handler, refusal = self.handler, self.refusal
        self._become(RUNNING)
        if handler is None:  # `Admission` always sets one
            return
        if refusal is None:
            handler.start()
        else:
            handler.fail(refusal)

    def peer(self) -> str:
        """Return the address from which the client's connection comes, "" if it is gone: a proxy's, if there is one."""
        address = self._transport.get_extra_info("peername")
        return str(address[0]) if address else ""

    def leave(self) -> None:
        """End the request because the client has left, then tell its handler. `connection_lost` calls it."""
        handler, self.handler = self.handler, None
        self._mark_over()
        if handler is not None:
            handler.on_gone()

    # the answer

    def begin(self, status: int, fields: Headers) -> None:
        """Fix the answer's status and headers. They are sent with the first body bytes, in one write, or by `flush`."""
        if self._stage < WHOLE:
            self.keep_alive = False  # the rest of the body would be taken for the next request
        self._become(ANSWERING)
        unframed = status in (204, 304) or headers.get(fields, b"content-length") is not None
        self.chunked = not (unframed or self.http_1_0)  # HTTP/1.0: its end is the connection's
        self._unsent_head = head_of(status, fields, FRAMING[self.chunked, self.keep_alive] + self.added)

    def write(self, data: bytes) -> None:
        """Send `data` as the next part of the body, in a chunk if the answer is chunked; nothing to HEAD."""
        if data and self.method != b"HEAD":
            self._send(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def write_framed(self, chunk: bytes) -> None:
        """Send one whole chunk, framing included, unchanged: the relay's fast way. Only if `chunked`, never to HEAD."""
        self._send(chunk)

    def flush(self) -> None:
        """Send the head if it is not sent yet: for an answer whose first body bytes are slow to come."""
        if self._unsent_head:
            self._send(b"")

    def end(self) -> None:
        """Complete the answer; the connection then goes on to its next request."""
        if self.chunked and self.method != b"HEAD":
            self._send(LAST_CHUNK)
        self.flush()
        self._finish()

    def break_off(self) -> None:
        """Close the connection with the answer visibly incomplete: for an error that comes too late for a status."""
        self.keep_alive = False
        self.flush()
        if self.http_1_0:  # where an orderly close would mean a complete answer
            self._reset()
        self._finish()

    def refuse(self, error: GatewayError, fields: Headers) -> None:
        """Send the whole answer for `error`: its status, `fields`, and its JSON object in the route's dialect."""
        body = error.body(self.dialect)
        self.begin(error.status, [*error.headers(), (b"content-length", b"%d" % len(body)), *fields])
        self.write(body)
        self.flush()
        self._finish()

    def _finish(self) -> None:
        """End the request after its answer, and have the connection go on or, without keep_alive, close."""
        self.handler = None
        self._mark_over()
        self._finished()

    def _mark_over(self) -> None:
        """Enter OVER, unless it is there already, and give the body's bytes back to the budget."""
        if self._stage is not OVER:
            self._become(OVER)
        self.let_go()

    def _become(self, stage: Stage) -> None:
        self._stage = changed(STAGES, self._stage, stage)

    def _send(self, data: bytes) -> None:
        """Send `data`, after the head if that is not sent yet; nothing on a connection that is closing by then."""
        if self._unsent_head:
            data, self._unsent_head = self._unsent_head + data, b""
        self._coalescer.send(self._transport, data)

    def _reset(self) -> None:
        """Write what waits, then close the connection with a TCP reset, which every client takes for an error."""
        self._coalescer.flush()
        if not self._transport.is_closing():
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER
            )
            self._transport.abort()


def head_of(status: int, fields: Headers, framing: bytes = b"") -> bytes:
    """Return the bytes of a response head with `fields` and a Date. framing: further header lines, with their CRLF."""
    head = [STATUS_LINES[status], http_date(int(time.time()))]
    for name, value in fields:
        head += (name, b": ", value, b"\r\n")
    head += (framing, b"\r\n")
    return b"".join(head)


@lru_cache(maxsize=2)
def http_date(second: int) -> bytes:
    """Return the header line `date` for a Unix time in seconds. Cached, since all answers of a second have the same."""
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()
