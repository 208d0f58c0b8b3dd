"""Compute how loaded workers are, and pick the least loaded. The selectors use it. Pure."""

from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

FRESH_S: Final = 0.1  # seconds for which weights and rests are used before they are computed again


class Candidate(Protocol):
    """What the choice sees of a worker; `fleet.workers.Worker` is one, and tests have simpler ones."""

    @property
    def slug(self) -> str: ...  # its model's directory under docker/; a split divides requests by it
    @property
    def address(self) -> str:
        """`host:port`, the same for as long as the worker lives; sessions and prefixes know the worker by it."""

    @property
    def weighted_in_flight(self) -> int:
        """Requests of this gateway that are with the worker now; a stream counts more until its first byte."""

    @property
    def waiting(self) -> float:
        """Requests in the worker's own queue, as its metrics last said."""

    @property
    def kv_use(self) -> float:
        """How much of its KV cache is in use, 0 to 1, as its metrics last said."""

    @property
    def slow_start_factor(self) -> float:
        """The part of its full share of requests that it takes: below 1 after a start, never 0."""


W = TypeVar("W", bound=Candidate)
T = TypeVar("T")
# A pool's weights and rests, in the pool's order: what one request in flight adds, and the load with none.
Figures = tuple[list[float], list[float]]


def load(worker: Candidate) -> float:
    """Return how loaded a worker would be with one request more, in requests; the lower, the better. Requests in flight
    are counted as they come and go, but the worker's own queue is known from metrics that are seconds old. So the queue
    counts half: otherwise load would swing between workers from one reading to the next."""
    return (worker.weighted_in_flight + 1 + worker.waiting / 2) * weight(worker)


def weight(worker: Candidate) -> float:
    """Return what one request adds to the load: 1 to 2 as the KV cache fills, up to ten times that in a slow start."""
    return (1 + worker.kv_use * worker.kv_use) / worker.slow_start_factor


def figures_of(pool: tuple[Candidate, ...]) -> Figures:
    """Return the parts of each load that only metrics change: load = weighted_in_flight * weight + rest."""
    weights = [weight(worker) for worker in pool]
    rests = [(1 + worker.waiting / 2) * per_one for worker, per_one in zip(pool, weights, strict=True)]
    return weights, rests


def least_loaded(pool: tuple[W, ...], figures: Figures, turn: int) -> W:
    """Return the least loaded of `pool` (not empty). figures: of `pool`. turn: a running number, which breaks ties."""
    least, equals = float("inf"), [pool[0]]
    for worker, per_one, rest in zip(pool, *figures):  # noqa: B905  # strict would cost a tenth of the loop
        now = worker.weighted_in_flight * per_one + rest
        if now > least:
            continue
        if now < least:
            least, equals = now, [worker]
        else:
            equals.append(worker)
    return equals[turn % len(equals)]


class PoolCache(Generic[W, T]):
    """Keeps what `make` computed for the last pool, so that not every request computes it. A pool is the same if it is
    the same tuple: the fleet makes a new one when a worker's state changes."""

    def __init__(self, make: Callable[[tuple[W, ...]], T]) -> None:
        self._make = make
        self._pool: tuple[W, ...] = ()
        self._value = make(())  # that of the empty pool, until the first comes

    def __call__(self, pool: tuple[W, ...]) -> T:
        if pool is not self._pool:
            self._pool, self._value = pool, self._make(pool)
        return self._value


class FiguresCache:
    """Keeps the weights and rests of the last pool for FRESH_S seconds; the metrics behind them are older than that."""

    def __init__(self) -> None:
        self._pool: tuple[Candidate, ...] = ()
        self._figures: Figures = ([], [])
        self._until = 0.0

    def of(self, pool: tuple[Candidate, ...], now: float) -> Figures:
        """Return the weights and rests of `pool`, computed anew for another pool or after FRESH_S seconds."""
        if pool is not self._pool or now >= self._until:
            self._pool, self._figures, self._until = pool, figures_of(pool), now + FRESH_S
        return self._figures
