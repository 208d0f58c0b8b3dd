"""Whether vLLM makes progress, from successive readings of its /metrics (`engine_metrics`). Pure.

The engine updates its numbers at the end of each step. One that stops while idle therefore never shows the request that
comes next, and looks idle for ever. So an engine that has been idle for half the limit is asked for one token
(`needs_probe`), which counts as work like any other request.
"""

from dataclasses import dataclass, replace

from launcher.engine.engine_metrics import EngineMetrics

_MAX_GAP = 3
"""In looks. A longer gap means that the launcher slept (`docker pause`, a suspended machine); it does not count."""


@dataclass(frozen=True)
class StallDetector:
    """How long nothing has moved while there was work. Times are seconds on the caller's clock."""

    limit_s: float
    every_s: float
    at: float
    own: float = 0.0  # the launcher's warm-up requests among the finished ones
    last: EngineMetrics = EngineMetrics()  # noqa: RUF009  # frozen
    answers: bool = True
    still_s: float = 0.0
    idle_s: float = 0.0
    has_work: bool = False

    def heard(self, metrics: EngineMetrics, now: float, *, asked: bool = False) -> "StallDetector":
        """The detector after an answer; `asked`: a token that we asked for has not come yet."""
        metrics = replace(metrics, before=self.own)
        has_work = metrics.is_busy or asked
        stays = has_work == self.has_work and metrics.stood_still_since(self.last)
        return replace(
            self,
            at=now,
            last=metrics,
            answers=True,
            has_work=has_work,
            still_s=self.still_s + self._since(now) if stays and has_work else 0.0,
            idle_s=self.idle_s + self._since(now) if stays and not has_work else 0.0,
        )

    def silent(self, now: float) -> "StallDetector":
        """The detector after a look without an answer: requests may be waiting that cannot be seen."""
        still_s = self.still_s + self._since(now) if self.last.tells else 0.0
        return replace(self, at=now, answers=False, still_s=still_s)

    def asked(self) -> "StallDetector":
        """The detector after a token was asked for: the next probe is due half a limit later."""
        return replace(self, idle_s=0.0)

    @property
    def needs_probe(self) -> bool:
        """Whether the engine has been idle for so long that only a request can show whether it still works."""
        return self.idle_s >= self.limit_s / 2

    @property
    def standstill(self) -> str | None:
        """What has stood still for the whole limit, and for how long, for a person; None while vLLM lives."""
        if self.still_s < self.limit_s:
            return None
        requests = f"{self.last.running:g} requests running and {self.last.waiting:g} waiting"
        if self.has_work and not self.last.is_busy:
            requests += " but for the launcher's own"
        if not self.answers:
            return f"/metrics has not answered for {self.still_s:.0f} s; before, {requests}"
        stood_still = "generation tokens, prompt tokens, KV use and finished requests"
        return f"{stood_still} have not changed for {self.still_s:.0f} s with {requests}"

    def _since(self, now: float) -> float:
        return min(now - self.at, _MAX_GAP * self.every_s)
