"""Decides from successive readings of vLLM's /metrics whether vLLM stands still. Pure; `Watch` uses it. The engine
updates its metrics only at the end of each step. If it stops while idle, the next request never shows in them and it
looks idle for ever. So after half the limit without work, `needs_token` tells the caller to request one token, which
counts as work like any other request."""

from dataclasses import dataclass, replace

from launcher.engine.engine_metrics import EngineMetrics

# polls; the part of a gap beyond this is not counted: the launcher slept (`docker pause`, a suspended machine)
_MAX_GAP = 3


@dataclass(frozen=True)
class StallDetector:
    """What is known of vLLM's progress after one poll; each method returns the value for after the next event.
    `limit_s` without progress is a standstill. `every_s` is the poll interval, `at` the time of the latest poll (on the
    caller's clock). `still_s` and `idle_s` are how long nothing has changed, with and without work."""

    limit_s: float
    every_s: float
    at: float
    own: float = 0.0  # finished requests that were the launcher's (warm-up) and prove nothing
    last: EngineMetrics = EngineMetrics()  # noqa: RUF009  # the latest reading; frozen, so it may be a default
    answers: bool = True  # whether /metrics answered the latest poll
    still_s: float = 0.0
    idle_s: float = 0.0
    has_work: bool = False

    def after_answer(self, metrics: EngineMetrics, now: float, *, asked: bool = False) -> "StallDetector":
        """Return the detector after a reading of /metrics; `asked`: the request for one token is unanswered. `still_s`
        or `idle_s` grows if nothing has changed, nor work begun or ended, and that counts (`tells`); else both are
        0."""
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

    def after_no_answer(self, now: float) -> "StallDetector":
        """Return the detector after a poll without an answer: time counts, if `tells`, as requests may wait unseen."""
        still_s = self.still_s + self._since(now) if self.last.tells else 0.0
        return replace(self, at=now, answers=False, still_s=still_s)

    def after_asking(self) -> "StallDetector":
        """Return the detector after one token was requested: the next time is half a limit later."""
        return replace(self, idle_s=0.0)

    @property
    def needs_token(self) -> bool:
        """Whether the engine has been idle for half the limit, so that the caller should request one token."""
        return self.idle_s >= self.limit_s / 2

    @property
    def standstill(self) -> str | None:
        """A sentence for the log on what has not changed for the whole limit; None if there is no standstill."""
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
        """Return the seconds since the latest poll, without those that the launcher slept."""
        return min(now - self.at, _MAX_GAP * self.every_s)
