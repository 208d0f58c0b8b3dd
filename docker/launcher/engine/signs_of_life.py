"""Tells `warming` when vLLM last showed a sign of life: an answer, or any change in its /metrics (`engine_metrics`)."""

import time
from collections.abc import Callable, Iterator

from launcher.engine.engine_metrics import EngineMetrics, read_metrics
from launcher.engine.question import METRICS_REQUEST, Question

_EVERY_S = 1.0  # between two polls of /metrics
_MAX_GAP_S = 3.0  # between two ticks; longer: the launcher slept (`docker pause`), and vLLM too; not counted


class SignsOfLife:
    """Polls /metrics once a second without blocking; `Warming` owns it and calls `tick`. `last` is the earliest time
    (on the clock) at which the latest sign can have happened. `quiet_s` is how long ago it was noticed, without those
    in which the launcher itself slept. `can_tell` is False if /metrics cannot be read."""

    def __init__(self, port: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask nothing yet. `port` is on 127.0.0.1; `clock` counts seconds and never goes back."""
        self._port = port
        self._clock = clock
        self._next = clock()
        self._metrics: Question | None = None
        self._asked_at = clock()  # when the open request was sent
        self._last_metrics: EngineMetrics | None = None
        self._metrics_at = clock()  # when `_last_metrics` were asked for
        self._at = self.last = clock()  # `_at`: the last tick
        self.quiet_s = 0.0
        self.can_tell = True

    def note_sign(self, at: float | None = None) -> None:
        """Note a sign of life that happened at the time `at` (None: now), as `Warming` does for each answer."""
        self.last, self.quiet_s = self._clock() if at is None else at, 0.0

    def readers(self) -> Iterator[int]:
        """Yield the descriptor of the open request, if there is one, for the caller to wait on."""
        if self._metrics and not self._metrics.over:
            yield self._metrics.fileno()

    def tick(self) -> None:
        """Add to `quiet_s`, read what has arrived, note a sign if /metrics has changed, ask again when it is due."""
        now = self._clock()
        self.quiet_s += min(now - self._at, _MAX_GAP_S)
        self._at = now
        if self._metrics:
            self._metrics.pump()
        if self._metrics and self._metrics.over:
            self._compare(self._metrics)
            self._metrics = None
        if self._metrics is None and now >= self._next:
            self._asked_at, self._next = now, now + _EVERY_S
            self._metrics = Question(self._port, METRICS_REQUEST)

    def close(self) -> None:
        """Close the open request, if there is one; the warm-up is over."""
        if self._metrics:
            self._metrics.close()

    def _compare(self, answer: Question) -> None:
        """Note a sign if the metrics differ from the last ones; it happened after those were asked for. An answer that
        failed tells nothing; one that is too large or not vLLM's turns `can_tell` off."""
        if answer.problem and not answer.too_large:
            return
        metrics = read_metrics(answer.body or b"")
        self.can_tell = metrics is not None
        if metrics and self._last_metrics and metrics.moved_since(self._last_metrics):
            self.note_sign(self._metrics_at)
        if metrics:
            self._last_metrics, self._metrics_at = metrics, self._asked_at
