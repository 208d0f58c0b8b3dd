"""Signs of life of a vLLM that is warmed: an answer of its, or any change of its numbers at /metrics (`vitals`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from launcher.engine.engine_metrics import Vitals, read_vitals
from launcher.engine.question import METRICS, Question

_EVERY_S = 1.0
_LONGEST_GAP_S = 3.0  # more between two looks: the launcher slept (`docker pause`), and vLLM too


class Signs:
    """Looks again and again, never waits.

    `last` is when there was one at the earliest, `quiet_s` the seconds since we heard of it in which we were awake.
    `can_tell`: whether what it says of its numbers can be read; that it says nothing at all is no sign of life.
    """

    def __init__(self, port: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`port` of 127.0.0.1; `clock` counts seconds and never goes back."""
        self._port = port
        self._clock = clock
        self._next = clock()
        self._metrics: Question | None = None
        self._asked_at = clock()
        self._vitals: Vitals | None = None
        self._vitals_at = clock()
        self._at = self.last = clock()
        self.quiet_s = 0.0
        self.can_tell = True

    def note(self, at: float | None = None) -> None:
        """There was one, at that time or later; now, if none is given."""
        self.last, self.quiet_s = self._clock() if at is None else at, 0.0

    def readers(self) -> Iterator[int]:
        """The descriptor of an open question."""
        if self._metrics and not self._metrics.over:
            yield self._metrics.fileno()

    def look(self) -> None:
        """Take what has come; ask anew when it is time."""
        now = self._clock()
        self.quiet_s += min(now - self._at, _LONGEST_GAP_S)
        self._at = now
        if self._metrics:
            self._metrics.pump()
        if self._metrics and self._metrics.over:
            self._hear(self._metrics)
            self._metrics = None
        if self._metrics is None and now >= self._next:
            self._asked_at, self._next = now, now + _EVERY_S
            self._metrics = Question(self._port, METRICS)

    def close(self) -> None:
        """Look no more."""
        if self._metrics:
            self._metrics.close()

    def _hear(self, answer: Question) -> None:
        if answer.problem and not answer.too_large:
            return
        vitals = read_vitals(answer.body or b"")
        self.can_tell = vitals is not None
        if vitals and self._vitals and vitals.moved_since(self._vitals):
            self.note(self._vitals_at)
        if vitals:
            self._vitals, self._vitals_at = vitals, self._asked_at
