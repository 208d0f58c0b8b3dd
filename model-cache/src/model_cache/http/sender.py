"""Sends files to clients by sendfile() in threads, so that a slow disk does not block the event loop."""

import asyncio
import errno
import os
import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

_AT_ONCE = 64  # files; more wait
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system without it
_READ_BYTES = 256 << 10  # at a time, where sendfile() does not work
_PACE_BYTES, _PACE_S = 8 << 20, 300.0  # to take so much in so long: below 28 kB a second a client is dropped


@dataclass(frozen=True)
class Piece:
    """The bytes [begin, end) of an open file."""

    file: BinaryIO
    begin: int
    end: int


class Sender:
    """Sends files to clients, in 64 threads of its own; more wait for their turn."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, "sender")
        self._clock = clock

    async def send(self, connection: socket.socket, piece: Piece) -> None:
        """Send the whole piece; `Listener` closes *connection* and file. If cancelled, shuts *connection* down, to stop
        the thread. Raises OSError, TimeoutError for a client that is too slow."""
        # with descriptors of its own, since the thread may outlive a cancelled call
        own, file = socket.socket(fileno=os.dup(connection.fileno())), os.dup(piece.file.fileno())

        def close(_: "Future[None]") -> None:
            own.close()
            os.close(file)

        sending = self._threads.submit(self._copy, own, file, piece.begin, piece.end)
        sending.add_done_callback(close)
        try:
            await asyncio.wrap_future(sending)
        except asyncio.CancelledError:
            with suppress(OSError):  # the client has gone, or `close` has run
                own.shutdown(socket.SHUT_RDWR)
            raise

    def _copy(self, connection: socket.socket, file: int, begin: int, end: int) -> None:
        """Send the bytes [begin, end), in a thread. Raises TimeoutError if `_PACE_BYTES` take over `_PACE_S`."""
        connection.setblocking(False)
        writable = select.poll()
        writable.register(connection, select.POLLOUT)
        at, goal, until = begin, begin, self._clock()
        send: Callable[[int, int, int, int], int] = os.sendfile
        while at < end:
            if at >= goal:
                goal, until = at + _PACE_BYTES, self._clock() + _PACE_S
            try:
                sent = send(connection.fileno(), file, at, end - at)
            except BlockingIOError:
                if not writable.poll(max(0.0, until - self._clock()) * 1000):
                    raise TimeoutError("the client takes too little") from None
                continue
            except OSError as error:
                if send is not os.sendfile or error.errno not in _NO_SENDFILE:
                    raise
                send = _send_read  # for the rest too
                continue
            if not sent:  # the end of the file, for both ways to send
                raise OSError("the file is shorter than it was")
            at += sent


def _send_read(connection: int, file: int, at: int, count: int) -> int:
    """Do what `os.sendfile` does, by a read and a send, where it does not work; what is not taken is read again."""
    return os.write(connection, os.pread(file, min(count, _READ_BYTES), at))
