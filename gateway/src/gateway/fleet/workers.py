"""Workers, and the lease that one request holds on one of them. No I/O."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.fleet.health import Health, WorkerState

PREFILL: Final = 4  # requests that a stream counts for until its first token: prefills delay each other most


@dataclass(frozen=True, slots=True)
class Served:
    """What a worker says of one of its models, in vLLM's words."""

    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


@dataclass(slots=True, eq=False)
class Worker:
    """One running vLLM server. Identity is the object: an address that comes back is a new worker.

    The data path only reads; the fleet writes all but `in_flight` and `weighted_in_flight`: the requests in flight, of
    which a stream without its first token counts as PREFILL; waiting: requests in the worker's own queue; kv_use: of
    its KV cache, 0 to 1; slow_start_factor: its part of a full worker's
    requests, below 1 while it is new; start: what its
    launcher says while it is not up, or None.
    """

    slug: str
    host: str
    port: int
    state: WorkerState = WorkerState.STARTING
    in_flight: int = 0
    weighted_in_flight: int = 0
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
    on_trial: "Callable[[Worker, int], None] | None" = None
    address: str = field(init=False)
    host_header: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.address = f"{self.host}:{self.port}"
        self.host_header = self.address.encode()

    def lease(self, *, streams: bool = False) -> "Lease":
        """Counts one request on this worker, until `end`. streams: its first token will be told."""
        return Lease(self, PREFILL if streams else 1)


class Lease:
    """One request's hold on a worker."""

    def __init__(self, worker: Worker, weighted_in_flight: int) -> None:
        self._worker = worker
        self._on_trial = worker.on_trial
        self._weight = weighted_in_flight
        worker.weighted_in_flight += weighted_in_flight
        self._count(1)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.end()

    def note_first(self) -> None:
        """The first token has come."""
        self._worker.weighted_in_flight += 1 - self._weight
        self._weight = 1

    def end(self) -> None:
        self._worker.weighted_in_flight -= self._weight
        self._count(-1)

    def _count(self, change: int) -> None:
        self._worker.in_flight += change
        if self._on_trial is not None:
            self._on_trial(self._worker, change)
