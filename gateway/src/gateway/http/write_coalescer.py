"""Collect what one turn of the event loop sends to any connection, and write it together when the turn is over.
A write costs several times as much if it wakes a sleeping receiver; back-to-back writes mostly find theirs awake."""

import asyncio
from typing import Final

MAX_WAITING_BYTES: Final = 64 * 1024  # above this, everything is written at once: a turn may send megabytes
Bytes = bytes | memoryview
Parts = list[Bytes]  # one message, in pieces to be written in order


class WriteCoalescer:
    """The bytes still to be written in this turn. Each process has one, shared by all connections on both sides."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._size = 0
        self._waiting: list[tuple[asyncio.Transport, Bytes]] = []

    def send(self, transport: asyncio.Transport, data: Bytes) -> None:
        """Have `data` written to `transport` by the next turn of the loop; calls keep their order. `data` of up to
        MAX_WAITING_BYTES after other bytes for the same connection is joined to them, for one write instead of two."""
        waiting = self._waiting
        self._size += len(data)
        if not waiting:
            self._loop.call_soon(self.flush)
        elif waiting[-1][0] is transport and len(data) <= MAX_WAITING_BYTES:
            data = b"".join((waiting.pop()[1], data))
        waiting.append((transport, data))
        if self._size > MAX_WAITING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write all that waits: a turn ends, it is much, or a connection is to close. Drop what is for closed ones."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        for transport, data in waiting:
            if not transport.is_closing():
                write(transport, data)


def write(transport: asyncio.Transport, data: Bytes) -> None:
    """Write `data`, or abort this connection if that fails, so that the others' bytes are still written."""
    try:
        transport.write(data)
    except (OSError, RuntimeError):  # for example after write_eof
        transport.abort()
