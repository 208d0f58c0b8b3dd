"""Whether vLLM gets anywhere, from successive readings of its /metrics. Pure.

`/health` cannot tell: vLLM's API server answers it while its engine stands still. Every number here comes from the
engine, with the end of a step. Progress is any change of generated or prompt tokens, KV use or finished requests.
A lone prefill of 256k tokens changes the KV use with each of its parts, and a first request may compile kernels for
minutes: nothing is judged before a first request has finished.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

_SAMPLE = re.compile(r"vllm:(?P<name>\w+)(?:\{[^\n]*\})? (?P<value>\S+)(?: \d+)?")
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

    @property
    def is_busy(self) -> bool:
        """Whether requests are in the engine."""
        return self.running + self.waiting > 0

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
}


def read(metrics: str) -> Reading:
    """Read Prometheus' text format; lines that say nothing about progress, or nothing at all, are passed over."""
    sums = dict.fromkeys(_FIELDS.values(), 0.0)
    for line in metrics.splitlines():
        sample = _SAMPLE.fullmatch(line)
        if sample and sample["name"] in _FIELDS:
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

    def heard(self, reading: Reading, now: float) -> Pulse:
        """vLLM has answered."""
        was_busy = self.last.is_busy and reading.is_busy
        stands_still = self._is_armed and was_busy and reading.progress == self.last.progress
        still_s = self._longer(now) if stands_still else 0.0
        return replace(self, at=now, last=reading, answers=True, still_s=still_s)

    def silent(self, now: float) -> Pulse:
        """vLLM has not answered for a while: what waits behind its silence cannot be seen, so something may."""
        return replace(self, at=now, answers=False, still_s=self._longer(now) if self._is_armed else 0.0)

    @property
    def standstill(self) -> str | None:
        """What has stood still for the whole limit, and for how long, for a person; None while vLLM lives."""
        if self.still_s < self.limit_s:
            return None
        requests = f"{self.last.running:g} requests running and {self.last.waiting:g} waiting"
        if not self.answers:
            return f"/metrics has not answered for {self.still_s:.0f} s; before, {requests}"
        stood_still = "generation tokens, prompt tokens, KV use and finished requests"
        return f"{stood_still} have not changed for {self.still_s:.0f} s with {requests}"

    @property
    def _is_armed(self) -> bool:
        return self.last.finished > 0

    def _longer(self, now: float) -> float:
        return self.still_s + min(now - self.at, _LONGEST_GAP * self.every_s)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
