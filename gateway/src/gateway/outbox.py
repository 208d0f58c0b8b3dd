"""Bytes on their way out, written together once everything that has come in this turn of the loop is dealt with.

A write whose receiver sleeps costs several times one that finds it awake: one right behind the other, most find it so.
"""

import asyncio

MOST_JOINED = 64 * 1024  # bytes for one connection that are copied into one piece


class Outbox:
    """What is to be written in this turn."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def send(self, transport: asyncio.Transport, data: bytes) -> None:
        """Writes `data` soon, in the order of the calls."""
        waiting = self._waiting
        if not waiting:
            self._loop.call_soon(self.flush)
        elif waiting[-1][0] is transport and len(waiting[-1][1]) + len(data) <= MOST_JOINED:
            data = waiting.pop()[1] + data
        waiting.append((transport, data))

    def flush(self) -> None:
        """Writes what waits. A connection that is closed before that loses its last bytes."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)
