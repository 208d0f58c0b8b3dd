"""What a user wants, and how well a trial did by that. Pure."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """How good a trial is: the median of its rounds, and by how much they differ (greatest minus least)."""

    value: float
    spread: float

    def beats(self, other: "Score") -> bool:
        """Return whether this is better by more than the rounds of either differ."""
        return self.value - other.value > max(self.spread, other.spread)


WORST = Score(float("-inf"), 0.0)  # of a trial that did not start, or did not answer


@dataclass(frozen=True)
class Goal:
    """The most tokens/s, as long as the medians of time to first token and time per token stay within the targets."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None

    def __str__(self) -> str:
        limits = (("TTFT", self.ttft_ms), ("TPOT", self.tpot_ms))
        within = " and ".join(f"{name} p50 <= {limit:g} ms" for name, limit in limits if limit)
        return f"tokens/s with {within}" if within else "tokens/s"

    def score(self, loads: Iterable[Mapping[str, Any]]) -> Score:
        """Return the score of all rounds of a trial (`bench.serve`); WORST if a request failed or none was sent.
        A round's value is the best of its concurrencies; where none is within the targets, it is negative."""
        rounds: dict[int, list[float]] = {}
        for load in loads:
            if "failure" in load or load.get("failed") or not load.get("output_throughput"):
                return WORST
            rounds.setdefault(load["round"], []).append(self._value(load))
        values = [max(of_round) for of_round in rounds.values()]
        return Score(statistics.median(values), max(values) - min(values)) if values else WORST

    def _value(self, load: Mapping[str, Any]) -> float:
        """Return tokens/s if the load is within the targets, else by how much it is beyond them, as -1 for twice."""
        limits = (("median_ttft_ms", self.ttft_ms), ("median_tpot_ms", self.tpot_ms))
        beyond = max((load[name] / limit - 1 for name, limit in limits if limit), default=0.0)
        return float(-beyond if beyond > 0 else load["output_throughput"])
