"""Whether vLLM gets anywhere, from successive readings of its /metrics (`vitals`). Pure.

Every number comes from the engine, with the end of a step. An engine that stops while it is idle never reports the
request that comes then: it seems idle for ever. So an engine that has been idle for half the limit is asked for a token
(`is_doubtful`), and that is work like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from launcher.engine.engine_metrics import Vitals

_LONGEST_GAP = 3
"""More than so many missed looks say that the launcher slept (`docker pause`, a suspended machine), not vLLM."""


@dataclass(frozen=True)
class Pulse:
    """How long nothing has moved although something should have. Times are seconds of the caller's clock."""

    limit_s: float
    every_s: float
    at: float
    own: float = 0.0  # requests that the launcher warmed it with, by whose end nothing is told
    last: Vitals = Vitals()  # noqa: RUF009  # frozen
    answers: bool = True
    still_s: float = 0.0
    idle_s: float = 0.0
    has_work: bool = False

    def heard(self, vitals: Vitals, now: float, *, asked: bool = False) -> Pulse:
        """vLLM has answered; `asked`: a token that we asked for has not come yet."""
        vitals = replace(vitals, before=self.own)
        has_work = vitals.is_busy or asked
        stays = has_work == self.has_work and vitals.stood_still_since(self.last)
        return replace(
            self,
            at=now,
            last=vitals,
            answers=True,
            has_work=has_work,
            still_s=self.still_s + self._since(now) if stays and has_work else 0.0,
            idle_s=self.idle_s + self._since(now) if stays and not has_work else 0.0,
        )

    def silent(self, now: float) -> Pulse:
        """vLLM has not answered for a while: what waits behind its silence cannot be seen, so something may."""
        still_s = self.still_s + self._since(now) if self.last.tells else 0.0
        return replace(self, at=now, answers=False, still_s=still_s)

    def asked(self) -> Pulse:
        """It has been asked for a token; the next doubt comes as late as this one."""
        return replace(self, idle_s=0.0)

    @property
    def is_doubtful(self) -> bool:
        """Whether it has been idle for so long that nobody knows whether it could do anything."""
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
        return min(now - self.at, _LONGEST_GAP * self.every_s)
