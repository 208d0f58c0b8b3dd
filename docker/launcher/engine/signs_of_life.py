"""Signs of life of a vLLM during warm-up: an answer, or any change in its /metrics (`engine_metrics`)."""

import time
from collections.abc import Callable, Iterator

from launcher.engine.engine_metrics import EngineMetrics, read_metrics
from launcher.engine.question import METRICS, Question

_EVERY_S = 1.0
_MAX_GAP_S = 3.0  # a longer gap: the launcher slept (`docker pause`), and vLLM with it


class SignsOfLife:
    """Polls without blocking.

    `last` is the earliest time at which the last sign can have happened; `quiet_s` counts the seconds since we saw it,
    without those in which the launcher itself slept. `can_tell` is False where /metrics cannot be read.
    """

    def __init__(self, port: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`port` of 127.0.0.1; `clock` counts seconds and never goes back."""
        self._port = port
        self._clock = clock
        self._next = clock()
        self._metrics: Question | None = None
        self._asked_at = clock()
        self._last_metrics: EngineMetrics | None = None
        self._metrics_at = clock()
        self._at = self.last = clock()
        self.quiet_s = 0.0
        self.can_tell = True

    def note(self, at: float | None = None) -> None:
        """Count a sign of life at the given time, or now."""
        self.last, self.quiet_s = self._clock() if at is None else at, 0.0

    def readers(self) -> Iterator[int]:
        """The descriptor of an open question."""
        if self._metrics and not self._metrics.over:
            yield self._metrics.fileno()

    def look(self) -> None:
        """Read what has arrived; ask again when it is time."""
        now = self._clock()
        self.quiet_s += min(now - self._at, _MAX_GAP_S)
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
        """Close what is open."""
        if self._metrics:
            self._metrics.close()

    def _hear(self, answer: Question) -> None:
        if answer.problem and not answer.too_large:
            return
        metrics = read_metrics(answer.body or b"")
        self.can_tell = metrics is not None
        if metrics and self._last_metrics and metrics.moved_since(self._last_metrics):
            self.note(self._metrics_at)
        if metrics:
            self._last_metrics, self._metrics_at = metrics, self._asked_at
