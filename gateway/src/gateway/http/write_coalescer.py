"""Bytes on their way out, written together once everything that has come in this turn of the loop is dealt with.

Waking a sleeping receiver makes a write several times as dear; of writes made back to back, most find theirs awake.
"""

import asyncio
from typing import Final

MAX_WAITING_BYTES: Final = 64 * 1024  # one turn may bring megabytes of requests
Bytes = bytes | memoryview
Parts = list[Bytes]  # of one message


class WriteCoalescer:
    """What is to be written in this turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._size = 0
        self._waiting: list[tuple[asyncio.Transport, Bytes]] = []

    def send(self, transport: asyncio.Transport, data: Bytes) -> None:
        """Writes `data` soon, in the order of the calls."""
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
        """Writes what waits. A connection that is closed before that loses its last bytes."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        for transport, data in waiting:
            if not transport.is_closing():
                write(transport, data)


def write(transport: asyncio.Transport, data: Bytes) -> None:
    """Writes, or breaks the connection off: one that cannot be written to costs no other its bytes."""
    try:
        transport.write(data)
    except (OSError, RuntimeError):  # as behind a written end
        transport.abort()
