"""From several processes to the one that writes: a pair of sockets that all inherit. A message is sent whole or not at
all, and stays in the kernel until it is read, whatever becomes of the process that sent it."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from gateway.usage.record import Row, messages, rows_in

MAX_BYTES: Final = 256 * 1024  # of a message: more than ROWS_A_MESSAGE rows have


def sockets() -> tuple[socket.socket, socket.socket]:
    """Return the end to read and the end to write, neither of which blocks."""
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in (reading, writing):
        one.setblocking(False)
    return reading, writing


class ToParent:
    """The end of a process that does not write itself. It is the `Sink` of its ledger."""

    def __init__(self, writing: socket.socket) -> None:
        self._writing = writing

    def put(self, rows: list[Row]) -> list[Row]:
        """Send rows; return those for which there is no room, or nobody who reads."""
        left: list[Row] = []
        for message, part in messages(rows):
            try:
                self._writing.send(message)
            except OSError:
                left += part
        return left


def received(reading: socket.socket) -> Iterator[Row]:
    """Yield all rows that were sent and not read yet."""
    with suppress(BlockingIOError):
        while message := reading.recv(MAX_BYTES):
            yield from rows_in(message)
