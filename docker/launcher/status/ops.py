"""The ops port: a thread that answers `GET /metrics` and `GET /state` from the state file, independent of the main
loop. Anybody on the network may ask, so everything is bounded: the number of connections (the oldest is closed for a
new one), the size of a request, and the time from connecting to the end of the answer. One request per connection."""

import asyncio
import json
import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from launcher.status import page, state

_MAX_CONNECTIONS = 256
_ACCEPTED_AT_ONCE = 16  # far fewer, so that a request is answered before newer connections push its own out
_BACKLOG = 128  # connections that the kernel keeps until they are accepted
_TIMEOUT_S = 5.0  # from connecting to the end of the answer
_MAX_HEAD_BYTES = 8192  # of a request
_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,1024}) HTTP/1\.[01]\r\n")
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
_MEASURED_EVERY_S = 5.0  # a disk's free space
_STALE_AFTER_S = 30.0  # a measurement older than this is not reported: the disk hangs or cannot be read


def serve(port: int, state_file: Path, disks: Mapping[str, Path]) -> None:
    """Start threads that answer on `port` until the process ends, and return. Raises `OSError` (the port is taken),
    `RuntimeError` (no thread is left). `disks` are directories, by name, whose free space /metrics reports."""
    listener = socket.create_server(("", port))
    server = _Server(state_file, [_Disk(name, path) for name, path in disks.items()])
    threading.Thread(target=server.run, args=(listener,), name="ops", daemon=True).start()


class _Server:
    """The server in the thread `ops`, with an event loop of its own. `_open` has the connections, oldest first."""

    def __init__(self, state_file: Path, disks: list["_Disk"]) -> None:
        self._state_file = state_file
        self._disks = disks
        self._open: dict[asyncio.StreamWriter, None] = {}  # in the order they came

    def run(self, listener: socket.socket) -> None:
        """Serve for ever, in the thread. If that cannot begin (no descriptor is left), try again a second later."""
        while True:
            with suppress(OSError), asyncio.Runner() as runner:
                runner.get_loop()  # raises if no descriptor is left, before the coroutine below is made
                runner.run(self._serve(listener))
            time.sleep(1)

    async def _serve(self, listener: socket.socket) -> None:
        """Accept connections for ever. Raises `OSError` if that cannot begin; `run` then calls it again."""
        # asyncio reports here that no descriptor was left to accept with, and tries again by itself
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        server = await asyncio.start_server(
            self._handle_connection, sock=listener, limit=_MAX_HEAD_BYTES, backlog=_ACCEPTED_AT_ONCE
        )
        listener.listen(_BACKLOG)  # asyncio used the number of connections it accepts at once for the backlog
        await server.serve_forever()

    async def _handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request within 5 s and close the connection; beyond the limit close the oldest one first. asyncio
        runs it as a task for each connection; whatever goes wrong only ends that connection."""
        self._open[writer] = None
        if len(self._open) > _MAX_CONNECTIONS:
            next(iter(self._open)).transport.abort()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                writer.transport.set_write_buffer_limits(0)  # so that `drain` waits until the kernel has all
                writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            del self._open[writer]
            writer.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        """Return the response to a request head; reads the state file, a few KB on a tmpfs, in the event loop."""
        request = _REQUEST.match(head)
        if request is None:
            return _response(HTTPStatus.BAD_REQUEST, "text/plain", "GET /metrics or /state\n")
        if request[1] != b"GET":
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", "GET /metrics or /state\n")
        known = state.read(self._state_file)
        if known is None:
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", "no state was written\n")
        if request[2] == b"/metrics":
            return _response(HTTPStatus.OK, _EXPOSITION, page.exposition(known, self._measured()))
        if request[2] == b"/state":
            return _response(HTTPStatus.OK, "application/json", json.dumps(page.report(known)))
        return _response(HTTPStatus.NOT_FOUND, "text/plain", "GET /metrics or /state\n")

    def _measured(self) -> dict[str, tuple[int, int]]:
        """Return free and total bytes of each disk that could be measured lately, for `page.exposition`."""
        return {disk.name: space for disk in self._disks if (space := disk.space) is not None}


def _response(status: HTTPStatus, kind: str, text: str) -> bytes:
    """Return the bytes of a response, after which the connection is closed."""
    body = text.encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    )
    allow = "allow: GET\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    return f"{head}{allow}connection: close\r\n\r\n".encode() + body


class _Disk:
    """The space of one disk, measured every 5 s in a thread, so that a disk that hangs blocks nothing else."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._measurement: tuple[float, tuple[int, int]] | None = None
        threading.Thread(target=self._measure_loop, name=f"disk-{name}", daemon=True).start()

    @property
    def space(self) -> tuple[int, int] | None:
        """Free and total bytes; None if they could not be read for 30 s."""
        if self._measurement is None or time.monotonic() - self._measurement[0] > _STALE_AFTER_S:
            return None
        return self._measurement[1]

    def _measure_loop(self) -> None:
        """Measure for ever, in the disk's own thread."""
        while True:
            self._measure()
            time.sleep(_MEASURED_EVERY_S)

    def _measure(self) -> None:
        """Measure once; after a failure the earlier measurement stays, until `space` finds it too old."""
        with suppress(OSError):
            stat = os.statvfs(self._path)
            space = stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize
            self._measurement = time.monotonic(), space
