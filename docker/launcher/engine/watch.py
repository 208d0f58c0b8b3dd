"""Watches one vLLM from ready on: reads its /metrics again and again, and reports a standstill."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from launcher.engine.engine_metrics import EngineMetrics, read_metrics
from launcher.engine.question import METRICS, TOKEN, Question
from launcher.engine.stall_detector import StallDetector

_LOOKS_PER_LIMIT = 10
_MAX_BETWEEN_S = 5.0


class Watch:
    """Polls without blocking. A limit of 0 turns it off.

    `is_unreadable` once vLLM's /metrics was too large to read: such a vLLM is not judged.
    """

    def __init__(self, port: int, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`port` of 127.0.0.1; `clock` counts seconds and never goes back."""
        self._port = port
        self._clock = clock
        self._every_s = min(limit_s / _LOOKS_PER_LIMIT, _MAX_BETWEEN_S)
        self._detector = StallDetector(limit_s, self._every_s, clock())
        self._next = clock()
        self._metrics: Question | None = None
        self._token: Question | None = None
        self.is_unreadable = False

    @property
    def every_s(self) -> float | None:
        """Seconds between two looks; None: there are none."""
        return self._every_s or None

    @property
    def standstill(self) -> str | None:
        """What has stood still for the whole limit, for a person; None while vLLM lives."""
        return self._detector.standstill if self._every_s else None

    def readers(self) -> Iterator[int]:
        """The descriptors of open questions."""
        return (question.fileno() for question in self._open())

    def leave_out(self, count: int) -> None:
        """`count` of vLLM's finished requests were the launcher's own, and prove nothing."""
        self._detector = replace(self._detector, own=count)

    def look(self) -> None:
        """Read what has arrived; ask again when it is time. A question still open by then counts as no answer."""
        for question in self._open():
            question.pump()
        self._hear()
        if self._every_s and (now := self._clock()) >= self._next:
            self._next = now + self._every_s
            self._ask(now)

    def close(self) -> None:
        """Close what is open."""
        for question in self._open():
            question.close()

    def _open(self) -> list[Question]:
        return [question for question in (self._metrics, self._token) if question and not question.over]

    def _hear(self) -> None:
        if self._metrics and self._metrics.too_large:  # it answers, but the answer proves nothing
            self.is_unreadable = True
            self._detector, self._metrics = self._detector.heard(EngineMetrics(), self._clock()), None
        elif self._metrics and (page := self._metrics.body) is not None:
            asked = self._token is not None and not self._token.over
            self._detector = self._detector.heard(
                read_metrics(page) or EngineMetrics(), self._clock(), asked=asked
            )
            self._metrics = None

    def _ask(self, now: float) -> None:
        if self._metrics:
            self._detector = self._detector.silent(now)
        if self._metrics is None or self._metrics.over:
            self._metrics = Question(self._port, METRICS)
        if self._detector.needs_probe:
            self._token, self._detector = Question(self._port, TOKEN), self._detector.asked()
