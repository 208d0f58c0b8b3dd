"""How long a worker has made no progress, summed over readings of its engine metrics. Pure; `health.py` uses it."""

import math
from dataclasses import dataclass, replace

from gateway.fleet.engine_metrics import EngineMetrics


@dataclass(frozen=True, slots=True)
class Progress:
    """How long nothing moved, in seconds of the caller's clock, summed over consecutive readings. moved: when progress
    was last seen. still_s: time without progress while the worker or the gateway counted requests on it. hung_s: the
    same by the worker's own count alone, which is the stronger sign: the gateway also counts requests whose client is
    slow to take a finished answer."""

    at: float = 0.0  # time of the last probe that passed
    last: EngineMetrics | None = None  # the last reading; None before the first
    was_ours: bool = False  # whether the gateway had requests on the worker then
    moved: float = -math.inf
    still_s: float = 0.0
    hung_s: float = 0.0

    def heard(self, metrics: EngineMetrics, in_flight: int, now: float, longest_s: float) -> "Progress":
        """Return the progress after a reading. in_flight: the gateway's requests on the worker. At most `longest_s` of
        the time since the last one counts, since the gateway may have been asleep."""
        ours = in_flight > 0
        metrics = replace(metrics, before=self._before(metrics))
        read = replace(self, at=now, last=metrics, was_ours=ours, still_s=0.0, hung_s=0.0)
        if self.last is None:
            return read
        if metrics.moved_since(self.last):
            return replace(read, moved=now)
        if not metrics.stood_still_since(self.last):  # it is asleep, or no client's request has finished yet
            return read
        passed = min(now - self.at, longest_s)
        worker_counts = metrics.is_busy and self.last.is_busy
        anyone_counts = (metrics.is_busy or ours) and (self.last.is_busy or self.was_ours)
        return replace(
            read,
            still_s=self.still_s + passed if anyone_counts else 0.0,
            hung_s=self.hung_s + passed if worker_counts else 0.0,
        )

    def _before(self, metrics: EngineMetrics) -> float:
        """Return how many requests had finished at the first reading, or at the first after a restart, which a falling
        count shows. The launcher's own warm-up requests are among them, and prove nothing of a client's."""
        if self.last is None or metrics.finished < self.last.finished:
            return metrics.finished
        return self.last.before

    def silent(self, now: float) -> "Progress":
        """Return the progress after a probe of which nothing can be judged: the time until now counts neither way."""
        return replace(self, at=now)
