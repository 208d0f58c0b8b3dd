"""How many of a worker's places (`in_flight_per_worker`) each class may fill. Pure.

vLLM interrupts a running request for one of a higher class only if the KV cache is full, not if all places are taken.
So lower classes must leave some of them free."""

from collections.abc import Collection

from gateway.config.api_keys import Priority
from gateway.config.model_options import Options
from gateway.fleet.workers import Worker

Places = tuple[int, int, int]  # for all requests; for those that are normal or bulk; for those that are bulk


def places_of(options: Options, classes: Collection[Priority]) -> Places | None:
    """Return how many places a worker of a model has for each class; None if there is no limit. classes: for which
    places are kept, since there are keys of them. Each class has at least one place."""
    every = options.in_flight_per_worker
    if every is None:
        return None
    kept = options.reserved.interactive if Priority.INTERACTIVE in classes else 0.0
    below_interactive = part_of(every, kept)
    kept += options.reserved.normal if Priority.NORMAL in classes else 0.0
    return every, below_interactive, min(below_interactive, part_of(every, kept))


def part_of(every: int, kept: float) -> int:
    """Return how many places are left if a part of them is kept, at least one. `round`: 10 * (1 - 0.8) is below 2."""
    return max(1, int(round(every * (1 - kept), 6)))


def has_place(worker: Worker, places: Places, priority: Priority) -> bool:
    """Return whether a worker takes one more request of a class. If so, it takes one of each higher class too."""
    every, below_interactive, below_normal = places
    if worker.in_flight >= every:
        return False
    normal_or_bulk, bulk = worker.in_flight_below
    if priority is Priority.INTERACTIVE:
        return True
    return normal_or_bulk < below_interactive and (priority is Priority.NORMAL or bulk < below_normal)
