"""Workers as the choice among them sees them: how loaded each is, and which is the least loaded. No I/O."""

from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

FRESH_S: Final = 0.1  # seconds for which what was read of the workers' slower figures is used again


class Candidate(Protocol):
    """A worker that can be chosen."""

    @property
    def slug(self) -> str: ...
    @property
    def address(self) -> str:
        """`host:port`, by which a worker is known again."""

    @property
    def weighted_in_flight(self) -> int:
        """Requests of this gateway that are with the worker now; a stream counts more until its first token."""

    @property
    def waiting(self) -> float:
        """Requests in the worker's own queue, as its metrics last said."""

    @property
    def kv_use(self) -> float:
        """How much of its KV cache is in use, 0 to 1, likewise."""

    @property
    def slow_start_factor(self) -> float:
        """What part of a full worker's requests it takes: below 1 while it starts slowly, never 0."""


W = TypeVar("W", bound=Candidate)
T = TypeVar("T")
# Per worker: what one request in flight weighs, and the load without any.
Figures = tuple[list[float], list[float]]


def load(worker: Candidate) -> float:
    """How loaded a worker would be with one request more, in requests; the lower, the better.

    The requests in flight are counted as they come and go; what the metrics say is seconds old. So the worker's own
    queue counts half: in full, all requests between two readings would run to the same worker, then away from it.
    """
    return (worker.weighted_in_flight + 1 + worker.waiting / 2) * weight(worker)


def weight(worker: Candidate) -> float:
    """What one request weighs there: up to twice as much as the KV cache fills, more while the worker starts slowly."""
    return (1 + worker.kv_use * worker.kv_use) / worker.slow_start_factor


def figures_of(pool: tuple[Candidate, ...]) -> Figures:
    """The parts of every worker's load that change only with its metrics: load = weighted_in_flight * weight + rest."""
    weights = [weight(worker) for worker in pool]
    rests = [(1 + worker.waiting / 2) * of_one for worker, of_one in zip(pool, weights, strict=True)]
    return weights, rests


def least_loaded(pool: tuple[W, ...], figures: Figures, turn: int) -> W:
    """The worker with the least load; `turn`, a running number, breaks ties in rotation. `pool` is not empty."""
    least, equals = float("inf"), [pool[0]]
    for worker, of_one, rest in zip(pool, *figures):  # noqa: B905  # strict would cost a tenth of the loop
        now = worker.weighted_in_flight * of_one + rest
        if now > least:
            continue
        if now < least:
            least, equals = now, [worker]
        else:
            equals.append(worker)
    return equals[turn % len(equals)]


class OfPool(Generic[W, T]):
    """What was worked out for the last pool, kept until another one is asked for. A pool is known by its identity."""

    def __init__(self, make: Callable[[tuple[W, ...]], T]) -> None:
        self._make = make
        self._pool: tuple[W, ...] = ()
        self._value = make(())

    def __call__(self, pool: tuple[W, ...]) -> T:
        if pool is not self._pool:
            self._pool, self._value = pool, self._make(pool)
        return self._value


class FreshFigures:
    """A pool's figures, read again for another pool and every FRESH_S seconds: they themselves are seconds old."""

    def __init__(self) -> None:
        self._pool: tuple[Candidate, ...] = ()
        self._figures: Figures = ([], [])
        self._until = 0.0

    def of(self, pool: tuple[Candidate, ...], now: float) -> Figures:
        if pool is not self._pool or now >= self._until:
            self._pool, self._figures, self._until = pool, figures_of(pool), now + FRESH_S
        return self._figures
