"""A small HTTP/1.1 server: one request per connection, without a body, and a limit on everything that a client may do.
h11 parses requests; the kernel sends files. When all connections are taken, a new one replaces the oldest that has its
answer, or else the oldest whose request is incomplete, so that slow clients, or those without a token, lock nobody out.
All of it runs in one event loop; only `sender` has threads. serve-weights and the progress port use it."""

import asyncio
import errno
import json
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain

import h11

from model_cache.http.sender import Piece, Sender

_MAX_CONNECTIONS = 512  # at a time; one more replaces another
_MAX_HEAD_BYTES = 16 << 10  # of a request line with its headers
_HEAD_S = 10.0  # seconds for a whole request to arrive
_TEXT_S = 60.0  # seconds to make an answer, and as many to send its text; `sender` limits files
_LINGER_BYTES, _LINGER_S = 1 << 20, 2.0  # read and dropped after the answer, at most
_BLOCK_BYTES = 64 << 10  # read at a time meanwhile
_BACKLOG = 1024  # connections that the kernel keeps until they are accepted


@dataclass(frozen=True)
class Request:
    """A GET or HEAD request. *target* is as sent; *headers* have lower-case names."""

    client: str
    target: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What to send: a *body* of type *kind*, or a piece of a file, which `Listener` closes. *on_taken* is called once
    it was sent and the client has closed the connection, or had two seconds to."""

    status: int
    body: bytes | Piece = b""
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    on_taken: Callable[[], None] = lambda: None


Handle = Callable[[Request], Awaitable[Answer]]
OnEnd = Callable[[str, str, str], None]
"""Called once for each connection with a request: the client, the target, and the status or what went wrong."""


class PortError(Exception):
    """The port is in use, or this user may not listen on it; the text says which of them."""


class Listener:
    """Answers each connection's one request by *handle*; *on_end* is called when a connection with a request ends.
    Between `_waiting` and `_answered` a connection is in neither: while it gets its answer none replaces it."""

    def __init__(self, handle: Handle, on_end: OnEnd) -> None:
        self._handle = handle
        self._on_end = on_end
        self._sender = Sender()
        self._all: set[asyncio.Task[None]] = set()  # one for each connection that is served
        self._waiting: dict[asyncio.Task[None], None] = {}  # whose request is incomplete, oldest first
        self._answered: dict[asyncio.Task[None], None] = {}  # which linger, oldest first

    async def start(self, port: int) -> asyncio.Server:
        """Listen on *port* of every IPv4 address. Raises PortError, or OSError for what is not about the port."""
        # by a socket of our own: asyncio's start_server skips an address for which no descriptor is left
        listening = _listening(port)
        try:
            return await asyncio.start_server(
                self._accept, sock=listening, backlog=_BACKLOG, limit=_MAX_HEAD_BYTES
            )
        except OSError:
            listening.close()
            raise

    async def stop(self, server: asyncio.Server) -> None:
        """Stop listening, and cut off all connections: the process ends, or the run that it tells of."""
        server.close()
        for task in self._all:
            task.cancel()
        await asyncio.gather(*self._all, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a new connection, or close it at once if no other can go; asyncio calls it, in a task of its own."""
        task = asyncio.current_task()
        assert task is not None
        with closing(writer):
            if not self._make_place():
                return
            self._all.add(task)
            self._waiting[task] = None
            try:
                await self._serve(task, reader, writer)
            except asyncio.CancelledError:  # replaced by a new connection, or the server stops
                writer.transport.abort()
            finally:
                self._forget(task)

    def _make_place(self) -> bool:
        """Return whether one more may be served; if need be drop the oldest answered or else incomplete connection."""
        if len(self._all) < _MAX_CONNECTIONS:
            return True
        oldest = next(chain(self._answered, self._waiting), None)
        if oldest is None:
            return False
        self._forget(oldest)  # now: its task runs, and ends, only later
        oldest.cancel()
        return True

    def _forget(self, task: asyncio.Task[None]) -> None:
        """Forget the connection: it ended or is dropped, and takes no place any more. Does nothing the second time."""
        self._all.discard(task)
        self._waiting.pop(task, None)
        self._answered.pop(task, None)

    async def _serve(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Read a request, answer, linger. *task* is in `_waiting` until the request is whole; in `_answered` to linger.
        A client that left before its request was whole is not told of by *on_end*."""
        client, asked = str((writer.get_extra_info("peername") or ("unknown",))[0]), ""
        wire = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        try:
            head = await _head(wire, reader)
            self._waiting.pop(task, None)
            if head is None:
                return
            asked, is_head = "no request", False  # a broken one, whose answer `_head` returned
            if isinstance(head, h11.Request):
                asked, is_head = head.target.decode("latin-1"), head.method == b"HEAD"
                answer = _refusal(head) or await self._call_handler(head, client, asked)
            else:
                answer = head
            await self._send(wire, writer, answer, is_head=is_head)
            self._answered[task] = None
            try:
                await _linger(reader, writer)
            finally:  # also if it is replaced: its answer was sent
                answer.on_taken()
                self._on_end(client, asked, str(answer.status))
        except (OSError, TimeoutError) as error:
            if asked:
                self._on_end(client, asked, f"broken off: {error or type(error).__name__}")
            writer.transport.abort()

    async def _send(
        self, wire: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, *, is_head: bool
    ) -> None:
        """Send the answer (to HEAD its head alone), close its file. Raises OSError, TimeoutError for a slow client."""
        body = answer.body
        length = body.end - body.begin if isinstance(body, Piece) else len(body)
        headers = {"Content-Type": answer.kind, "Content-Length": str(length), "Connection": "close"}
        fields = list((headers | answer.headers).items())
        head = wire.send(h11.Response(status_code=answer.status, headers=fields)) or b""
        if isinstance(body, Piece):
            with body.file:
                await _write(writer, head)
                if not is_head:
                    await self._sender.send(writer.get_extra_info("socket"), body)
        else:
            await _write(writer, head if is_head else head + body)

    async def _call_handler(self, head: h11.Request, client: str, asked: str) -> Answer:
        """Return the handler's answer. Raises TimeoutError if it takes over a minute, as on a disk that hangs."""
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        async with asyncio.timeout(_TEXT_S):
            return await self._handle(Request(client, asked, headers))


def run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run *main*, a server, as asyncio.run does. Raises OSError, before it is called, if no event loop can be made."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(main())


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that may be left half made, where descriptors lack: BaseEventLoop.__del__ would fail with it."""

    def __del__(self) -> None:
        """Do nothing: asyncio.Runner closes a loop that was made whole."""


def _listening(port: int) -> socket.socket:
    """Return a socket that listens on IPv4. Raises PortError if the port is why there is none, else OSError."""
    try:
        return socket.create_server(("0.0.0.0", port), backlog=_BACKLOG)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortError(os.strerror(error.errno)) from error
        raise


def problem(status: int, text: str) -> Answer:
    """Return an answer with an error as JSON, also for handlers."""
    return Answer(status, json.dumps({"error": text}).encode())


def _refusal(head: h11.Request) -> Answer | None:
    """Return the answer to another method, or to a body, which nobody would read; None for a request that is let in."""
    if head.method not in (b"GET", b"HEAD"):
        refused = problem(405, "there is GET and HEAD")
        return Answer(405, refused.body, headers={"Allow": "GET, HEAD"})
    framing = {
        name: value for name, value in head.headers if name in (b"content-length", b"transfer-encoding")
    }
    if framing not in ({}, {b"content-length": b"0"}):
        return problem(400, "a GET has no body here")
    return None


async def _head(wire: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | Answer | None:
    """Return the request's head, an error for a broken one, None if the client left. Raises OSError, TimeoutError."""
    async with asyncio.timeout(_HEAD_S):
        while True:
            try:
                event = wire.next_event()
            except h11.RemoteProtocolError as error:
                return problem(400, str(error))
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:  # ConnectionClosed, once read() returned nothing
                return None
            wire.receive_data(await reader.read(_MAX_HEAD_BYTES))


async def _write(writer: asyncio.StreamWriter, text: bytes) -> None:
    """Write all of *text*; wait until the kernel has it (high=0), since a thread may send a file after it."""
    writer.transport.set_write_buffer_limits(high=0)
    writer.write(text)
    async with asyncio.timeout(_TEXT_S):
        await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the end; read and drop what the client still sends: to close with unread bytes resets the connection."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            writer.write_eof()
            left = _LINGER_BYTES
            while left > 0 and (block := await reader.read(_BLOCK_BYTES)):
                left -= len(block)


def port_of(server: asyncio.Server) -> int:
    """Return the port that the server listens on; with port 0 the kernel has chosen one."""
    bound: socket.socket = server.sockets[0]
    return int(bound.getsockname()[1])
