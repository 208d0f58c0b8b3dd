"""Whether vLLM gets anywhere, from successive readings of its /metrics. Pure.

`/health` cannot tell: vLLM's API server answers it while its engine stands still. Every number here comes from the
engine, with the end of a step. Progress is any change of generated or prompt tokens, KV use or finished requests.
A lone prefill of 256k tokens changes the KV use with each of its parts, and a first request may compile kernels for
minutes: nothing is judged before a first request has finished.
An engine that stops while it is idle never reports the request that comes then: it seems idle for ever. So an
engine that has been idle for half the limit is asked for a token (`is_doubtful`), and that is work like any other.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

_SAMPLE = re.compile(r"vllm:(?P<name>\w+)(?P<labels>\{[^\n]*\})? (?P<value>\S+)(?: \d+)?")
_AWAKE = 'sleep_state="awake"'
_LONGEST_GAP = 3
"""More than so many missed looks say that the launcher slept (`docker pause`, a suspended machine), not vLLM."""


@dataclass(frozen=True)
class Reading:
    """What vLLM says of itself at one moment, summed over its engines; what it does not say is 0."""

    running: float = 0.0
    waiting: float = 0.0
    generation_tokens: float = 0.0
    prompt_tokens: float = 0.0
    kv_use: float = 0.0
    finished: float = 0.0
    asleep: float = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether requests are in the engine."""
        return self.running + self.waiting > 0

    @property
    def tells(self) -> bool:
        """Whether standing still means anything: a request has finished before, and nobody put the engine to sleep."""
        return self.finished > 0 and not self.asleep

    @property
    def progress(self) -> tuple[float, ...]:
        """The numbers of which one changes when the engine gets anywhere."""
        return (self.generation_tokens, self.prompt_tokens, self.kv_use, self.finished)


_FIELDS = {
    "num_requests_running": "running",
    "num_requests_waiting": "waiting",
    "generation_tokens_total": "generation_tokens",
    "prompt_tokens_total": "prompt_tokens",
    "kv_cache_usage_perc": "kv_use",
    "request_success_total": "finished",
    "engine_sleep_state": "asleep",
}


def read(metrics: str) -> Reading:
    """Read Prometheus' text format; lines that say nothing about progress, or nothing at all, are passed over."""
    sums = dict.fromkeys(_FIELDS.values(), 0.0)
    for line in metrics.splitlines():
        sample = _SAMPLE.fullmatch(line)
        if sample and sample["name"] in _FIELDS and _AWAKE not in (sample["labels"] or ""):
            sums[_FIELDS[sample["name"]]] += _number(sample["value"])
    return Reading(**sums)


@dataclass(frozen=True)
class Pulse:
    """How long nothing has moved although something should have. Times are seconds of the caller's clock."""

    limit_s: float
    every_s: float
    at: float
    last: Reading = Reading()
    answers: bool = True
    still_s: float = 0.0
    idle_s: float = 0.0
    has_work: bool = False

    def heard(self, reading: Reading, now: float, *, asked: bool = False) -> Pulse:
        """vLLM has answered; `asked`: a token that we asked for has not come yet."""
        has_work = reading.is_busy or asked
        same = (has_work, reading.progress) == (self.has_work, self.last.progress)
        stays = same and reading.tells and self.last.tells
        return replace(
            self,
            at=now,
            last=reading,
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


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
