"""A watch on one vLLM from when it is ready: asks after its progress, and says when that has stopped for too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from launcher.engine.engine_metrics import Vitals, read_vitals
from launcher.engine.question import METRICS, TOKEN, Question
from launcher.engine.stall_detector import Pulse

_LOOKS_PER_LIMIT = 10
_LONGEST_BETWEEN_S = 5.0


class Watch:
    """Looks again and again, never waits. A limit of 0 means: never look.

    `is_blind` once vLLM's numbers were too many to read: such a vLLM is not judged.
    """

    def __init__(self, port: int, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`port` of 127.0.0.1; `clock` counts seconds and never goes back."""
        self._port = port
        self._clock = clock
        self._every_s = min(limit_s / _LOOKS_PER_LIMIT, _LONGEST_BETWEEN_S)
        self._pulse = Pulse(limit_s, self._every_s, clock())
        self._next = clock()
        self._metrics: Question | None = None
        self._token: Question | None = None
        self.is_blind = False

    @property
    def every_s(self) -> float | None:
        """Seconds between two looks; None: there are none."""
        return self._every_s or None

    @property
    def standstill(self) -> str | None:
        """What has stood still for the whole limit, for a person; None while vLLM lives."""
        return self._pulse.standstill if self._every_s else None

    def readers(self) -> Iterator[int]:
        """The descriptors of open questions."""
        return (question.fileno() for question in self._open())

    def leave_out(self, count: int) -> None:
        """So many of vLLM's requests were the launcher's own: that they have finished tells nothing."""
        self._pulse = replace(self._pulse, own=count)

    def look(self) -> None:
        """Take what has come; ask anew when it is time. A look that is still unanswered then counts as silence."""
        for question in self._open():
            question.pump()
        self._hear()
        if self._every_s and (now := self._clock()) >= self._next:
            self._next = now + self._every_s
            self._ask(now)

    def close(self) -> None:
        """Look no more."""
        for question in self._open():
            question.close()

    def _open(self) -> list[Question]:
        return [question for question in (self._metrics, self._token) if question and not question.over]

    def _hear(self) -> None:
        if self._metrics and self._metrics.too_large:  # it answers, and nothing can be told from that
            self.is_blind = True
            self._pulse, self._metrics = self._pulse.heard(Vitals(), self._clock()), None
        elif self._metrics and (page := self._metrics.body) is not None:
            asked = self._token is not None and not self._token.over
            self._pulse = self._pulse.heard(read_vitals(page) or Vitals(), self._clock(), asked=asked)
            self._metrics = None

    def _ask(self, now: float) -> None:
        if self._metrics:
            self._pulse = self._pulse.silent(now)
        if self._metrics is None or self._metrics.over:
            self._metrics = Question(self._port, METRICS)
        if self._pulse.is_doubtful:
            self._token, self._pulse = Question(self._port, TOKEN), self._pulse.asked()
