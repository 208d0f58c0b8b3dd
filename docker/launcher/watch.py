"""A watch on one vLLM from when it is ready: asks after its progress, and says when that has stopped for too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from launcher.pulse import Pulse, read
from launcher.scrape import Scrape

_LOOKS_PER_LIMIT = 10
_LONGEST_BETWEEN_S = 5.0


class Watch:
    """Looks again and again, never waits. A limit of 0 means: never look."""

    def __init__(self, port: int, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`port` of 127.0.0.1; `clock` counts seconds and never goes back."""
        self._port = port
        self._clock = clock
        self._every_s = min(limit_s / _LOOKS_PER_LIMIT, _LONGEST_BETWEEN_S)
        self._pulse = Pulse(limit_s, self._every_s, clock())
        self._next = clock()
        self._scrape: Scrape | None = None

    @property
    def every_s(self) -> float | None:
        """Seconds between two looks; None: there are none."""
        return self._every_s or None

    @property
    def standstill(self) -> str | None:
        """What has stood still for the whole limit, for a person; None while vLLM lives."""
        return self._pulse.standstill if self._every_s else None

    def readers(self) -> Iterator[int]:
        """The descriptor of an open question, if there is one."""
        return (scrape.fileno() for scrape in (self._scrape,) if scrape and not scrape.over)

    def look(self) -> None:
        """Take what has come; ask anew when it is time. A question that is still open then counts as silence."""
        if self._scrape:
            self._hear(self._scrape)
        if self._every_s and (now := self._clock()) >= self._next:
            self._next = now + self._every_s
            if self._scrape:
                self._pulse = self._pulse.silent(now)
            if self._scrape is None or self._scrape.over:
                self._scrape = Scrape(self._port)

    def close(self) -> None:
        """Look no more."""
        if self._scrape:
            self._scrape.close()

    def _hear(self, scrape: Scrape) -> None:
        if not scrape.over:
            scrape.pump()
        if (text := scrape.text) is not None:
            self._pulse = self._pulse.heard(read(text), self._clock())
            self._scrape = None
