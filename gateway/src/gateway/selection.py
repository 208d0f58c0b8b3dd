"""Which worker takes a request: a pure choice among those offered."""

from collections.abc import Sequence

from gateway.workers import Worker


def least_in_flight(workers: Sequence[Worker], turn: int) -> Worker:
    """The worker with the fewest requests in flight; `turn`, a running number, breaks ties in rotation.

    `workers` must not be empty.
    """
    fewest = min(worker.in_flight for worker in workers)
    candidates = [worker for worker in workers if worker.in_flight == fewest]
    return candidates[turn % len(candidates)]
