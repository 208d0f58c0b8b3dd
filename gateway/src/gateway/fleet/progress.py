"""How long a worker has stood still, from one reading of its vitals to the next. Pure."""

import math
from dataclasses import dataclass, replace

from gateway.fleet.engine_metrics import Vitals


@dataclass(frozen=True, slots=True)
class Progress:
    """How long nothing has moved, in seconds of the caller's clock, summed over readings that came one after another.

    moved: when progress was last seen. still_s: with requests there all the while, by the worker's account or by ours.
    hung_s: by its own account. Ours alone is weaker: a client may be slow to take an answer that the worker has long
    finished.
    """

    at: float = 0.0
    last: Vitals | None = None
    was_ours: bool = False
    moved: float = -math.inf
    still_s: float = 0.0
    hung_s: float = 0.0

    def heard(self, vitals: Vitals, in_flight: int, now: float, longest_s: float) -> "Progress":
        """The worker was read. Of the time since the last reading at most `longest_s` counts: we may have slept."""
        ours = in_flight > 0
        vitals = replace(vitals, before=self._before(vitals))
        read = replace(self, at=now, last=vitals, was_ours=ours, still_s=0.0, hung_s=0.0)
        if self.last is None:
            return read
        if vitals.moved_since(self.last):
            return replace(read, moved=now)
        if not vitals.stood_still_since(self.last):
            return read
        passed = min(now - self.at, longest_s)
        busy = vitals.is_busy and self.last.is_busy
        there = (vitals.is_busy or ours) and (self.last.is_busy or self.was_ours)
        return replace(
            read,
            still_s=self.still_s + passed if there else 0.0,
            hung_s=self.hung_s + passed if busy else 0.0,
        )

    def _before(self, vitals: Vitals) -> float:
        """How many requests had finished at the first look, or at the first one after a restart: its launcher's own, by
        which a new vLLM was warmed, are among them."""
        if self.last is None or vitals.finished < self.last.finished:
            return vitals.finished
        return self.last.before

    def silent(self, now: float) -> "Progress":
        """The worker did not say: this time is not judged."""
        return replace(self, at=now)
