"""Tells `warming` when vLLM last showed a sign of life: an answer, or any change in its /metrics (`engine_metrics`)."""

import time
from collections.abc import Callable, Iterator

from launcher.engine.engine_metrics import EngineMetrics, read_metrics
from launcher.engine.question import METRICS_REQUEST, Question

_EVERY_S = 1.0  # between two polls of /metrics
_MAX_GAP_S = 3.0  # between two ticks; longer: the launcher slept (`docker pause`), and vLLM too; not counted


class SignsOfLife:
    """Polls /metrics once a second without blocking; `Warming` owns it and calls `tick`. `sign_at` is the earliest time
    (on the clock) at which the latest sign can have happened, `quiet_s` how many seconds ago it was noticed, without
    those in which the launcher slept. `can_tell` is False while vLLM answers /metrics with what cannot be read."""

    def __init__(self, port: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask nothing yet. `port` is on 127.0.0.1; `clock` counts seconds and never goes back."""
        self._port = port
        self._clock = clock
        self._next = clock()
        self._question: Question | None = None
        self._asked_at = clock()  # when the open request was sent
        self._metrics: EngineMetrics | None = None  # the latest that could be read
        self._metrics_at = clock()  # when `_metrics` were asked for
        self._ticked_at = self.sign_at = clock()  # the latest tick, the latest sign
        self.quiet_s = 0.0
        self.can_tell = True

    def note_sign(self, at: float | None = None) -> None:
        """Note a sign of life that happened at the time `at` (None: now), as `Warming` does for each answer."""
        self.sign_at, self.quiet_s = self._clock() if at is None else at, 0.0

    def readers(self) -> Iterator[int]:
        """Yield the descriptor of the open request, if there is one, for the caller to wait on."""
        if self._question and not self._question.over:
            yield self._question.fileno()

    def tick(self) -> None:
        """Add to `quiet_s`, read what has arrived, note a sign if /metrics has changed, ask again when it is due."""
        now = self._clock()
        self.quiet_s += min(now - self._ticked_at, _MAX_GAP_S)
        self._ticked_at = now
        if self._question:
            self._question.pump()
        if self._question and self._question.over:
            self._compare(self._question)
            self._question = None
        if self._question is None and now >= self._next:
            self._asked_at, self._next = now, now + _EVERY_S
            self._question = Question(self._port, METRICS_REQUEST)

    def close(self) -> None:
        """Close the open request, if there is one; the warm-up is over."""
        if self._question:
            self._question.close()

    def _compare(self, answer: Question) -> None:
        """Note a sign if the metrics differ from those before; it happened after those were asked for. A request that
        failed tells nothing; an answer that is too large or not vLLM's turns `can_tell` off, until a good one."""
        if answer.problem and not answer.too_large:
            return
        metrics = read_metrics(answer.body or b"")
        self.can_tell = metrics is not None
        if metrics and self._metrics and metrics.moved_since(self._metrics):
            self.note_sign(self._metrics_at)
        if metrics:
            self._metrics, self._metrics_at = metrics, self._asked_at
