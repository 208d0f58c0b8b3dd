"""Workers, their states, and the lease that one request holds on one of them. No I/O."""

from dataclasses import dataclass, field
from enum import StrEnum


class WorkerState(StrEnum):
    """STARTING: seen, never ready yet. READY: takes requests. DOWN: was ready and failed its probes."""

    STARTING = "starting"
    READY = "ready"
    DOWN = "down"


@dataclass(slots=True, eq=False)
class Worker:
    """One running vLLM server. Identity is the object: an address that comes back is a new worker."""

    slug: str
    host: str
    port: int
    state: WorkerState = WorkerState.STARTING
    in_flight: int = 0
    failures: int = 0
    reason: str = "not probed yet"
    address: str = field(init=False)
    host_header: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.address = f"{self.host}:{self.port}"
        self.host_header = self.address.encode()

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def lease(self) -> "Lease":
        """A context that counts one request on this worker until its block ends."""
        return Lease(self)


class Lease:
    """One request's hold on a worker."""

    __slots__ = ("_worker",)

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __enter__(self) -> None:
        self._worker.in_flight += 1

    def __exit__(self, *_: object) -> None:
        self._worker.in_flight -= 1


def after_success(worker: Worker) -> WorkerState:
    """The state after a probe that passed."""
    worker.failures, worker.reason = 0, ""
    return WorkerState.READY


def after_failure(worker: Worker, reason: str, fall: int) -> WorkerState:
    """The state after a failed probe or connection: a ready worker falls after `fall` failures in a row."""
    worker.failures, worker.reason = worker.failures + 1, reason
    if worker.state is WorkerState.READY and worker.failures >= fall:
        return WorkerState.DOWN
    return worker.state
