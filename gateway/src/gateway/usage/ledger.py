"""The usage of one process: summed up in memory, and given away at most every half second."""

import asyncio
from typing import Final, Protocol

from gateway.usage.record import Row, Sums

EVERY_S: Final = 0.5  # what a process that is killed may lose, and a little more


class Sink(Protocol):
    """Takes a process's sums: `writer.UsageWriter`, or `pipe.ToParent` with several processes."""

    def put(self, rows: list[Row]) -> list[Row]:
        """Take rows without blocking; return those that cannot be taken now."""


class Ledger:
    """Counts requests of keys; one per process. `Recorder` adds to it."""

    def __init__(self, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        self._sink = sink
        self._loop = loop
        self._sums = Sums()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, key: str, model: str, sent: bool, tokens_in: int, cached: int, tokens_out: int) -> None:
        """Count a request that has ended. sent: to a worker."""
        use = self._sums.of(key, model)
        if sent:
            use.requests += 1
        else:
            use.refused += 1
        use.tokens_in += tokens_in
        use.cached += cached
        use.tokens_out += tokens_out
        if self._timer is None:
            self._timer = self._loop.call_later(EVERY_S, self.flush)

    def flush(self) -> None:
        """Give the sums away; those that are not taken are kept until the next time. Also called at the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for row in self._sink.put(self._sums.take()):
            self._sums.add(row)
        if len(self._sums) > 0:
            self._timer = self._loop.call_later(EVERY_S, self.flush)
