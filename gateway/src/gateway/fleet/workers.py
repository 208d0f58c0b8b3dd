"""Workers, and the lease that one request holds on one of them. No I/O."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.config.api_keys import Priority
from gateway.fleet.health import Health, WorkerState

PREFILL: Final = 4  # requests that a stream counts for until its first byte: prefills delay each other most


@dataclass(frozen=True, slots=True)
class Served:
    """One entry of a worker's /v1/models: a model it serves, in vLLM's own words."""

    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


@dataclass(slots=True, eq=False)
class Worker:
    """One running vLLM server. It is compared by object: a worker that comes back at an old address is a new one. The
    data path changes only the counts of requests in flight (through leases; a stream whose answer's first byte has not
    come weighs PREFILL requests). The fleet writes the rest, and discovery `served` and `start`. in_flight_below: those
    requests that are normal or bulk, and those that are bulk; waiting: requests in the worker's own queue; kv_use:
    share of its KV cache in use, 0 to 1; moved: when its engine last made progress; slow_start_factor: share of its
    usual requests, below 1 while it is new; start: what its launcher reports while it is not up, or None."""

    slug: str
    host: str
    port: int
    state: WorkerState = WorkerState.STARTING
    in_flight: int = 0
    weighted_in_flight: int = 0
    in_flight_below: list[int] = field(default_factory=lambda: [0, 0])
    waiting: float = 0.0
    kv_use: float = 0.0
    moved: float = -math.inf
    slow_start_factor: float = 1.0
    start: Mapping[str, object] | None = None
    served: Mapping[str, Served] = field(default_factory=dict)  # by name, as it last told
    reason: str = "not probed yet"
    health: Health = field(default_factory=Health)
    is_settled: bool = True  # a good answer changes nothing
    trials: int = 0  # of a half-open worker: leases that began on trial and have not ended
    on_trial: "Callable[[Worker, int], None] | None" = None  # counts `trials`; None unless half open
    address: str = field(init=False)
    host_header: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.address = f"{self.host}:{self.port}"
        self.host_header = self.address.encode()

    def lease(self, *, streams: bool = False, priority: Priority = Priority.NORMAL) -> "Lease":
        """Count one more request on this worker, for an `Attempt`, until the lease ends. streams: the answer will be a
        stream, so that `note_first_byte` will follow. priority: the request's."""
        return Lease(self, PREFILL if streams else 1, priority.value)


class Lease:
    """One request's count on a worker, until `end`, which must be called once (tests use `with`)."""

    def __init__(self, worker: Worker, weighted_in_flight: int, rank: int) -> None:
        self._worker = worker
        self._rank = rank
        self._on_trial = worker.on_trial
        self._weight = weighted_in_flight
        worker.weighted_in_flight += weighted_in_flight
        self._count(1)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.end()

    def note_first_byte(self) -> None:
        """Count the request as one from now on: its answer's first body byte has come, so its prefill is over."""
        self._worker.weighted_in_flight += 1 - self._weight
        self._weight = 1

    def end(self) -> None:
        """Take the request off the worker's counts: it is over, or goes to another worker."""
        self._worker.weighted_in_flight -= self._weight
        self._count(-1)

    def _count(self, change: int) -> None:
        """Add `change` (±1) to the worker's requests, and to its trials if it was on trial when the lease began."""
        self._worker.in_flight += change
        for above in range(self._rank):
            self._worker.in_flight_below[above] += change
        if self._on_trial is not None:
            self._on_trial(self._worker, change)
