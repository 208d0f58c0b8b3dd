"""Load: what makes a worker busier, which worker is the least busy, and that stale figures make no herd."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.balancing.load import FRESH_S, FiguresCache, PoolCache, figures_of, least_loaded, load


@dataclass(eq=False)
class Worker:
    """A candidate with figures of its own."""

    slug: str = "a"
    address: str = "10.0.0.1:8000"
    weighted_in_flight: int = 0
    waiting: float = 0.0
    kv_use: float = 0.0
    slow_start_factor: float = 1.0


workers = some.builds(
    Worker,
    weighted_in_flight=some.integers(0, 50),
    waiting=some.floats(0, 200),
    kv_use=some.floats(0, 1),
    slow_start_factor=some.floats(0.1, 1),
)
pools = some.lists(workers, min_size=1, max_size=8).map(tuple)


@pytest.mark.parametrize(
    "busier",
    [{"weighted_in_flight": 1}, {"waiting": 1.0}, {"kv_use": 0.5}, {"slow_start_factor": 0.9}],
)
def test_each_figure_makes_a_worker_busier(busier: dict[str, float]) -> None:
    """More in flight, a longer queue, a fuller cache and a slow start each count."""
    assert load(Worker(**busier)) > load(Worker())


def test_an_idle_worker_has_the_load_of_the_request_to_come() -> None:
    """The unit of load is a request."""
    assert load(Worker()) == 1
    assert load(Worker(weighted_in_flight=3)) == 4
    assert load(Worker(slow_start_factor=0.1)) == pytest.approx(10)


@given(pools, some.integers(0, 1000))
def test_nobody_is_less_loaded_than_the_one_chosen(pool: tuple[Worker, ...], turn: int) -> None:
    """The shortened sum over a whole pool chooses as the load itself would."""
    chosen = least_loaded(pool, figures_of(pool), turn)
    assert load(chosen) <= min(load(worker) for worker in pool) * (1 + 1e-9)


@given(some.lists(some.integers(0, 2), min_size=1, max_size=8), some.integers(0, 1000))
def test_equals_take_turns(loads: list[int], turn: int) -> None:
    """As many turns as there are equals choose each of them once."""
    pool = tuple(Worker(weighted_in_flight=load) for load in loads)
    figures, equals = figures_of(pool), [one for one in pool if one.weighted_in_flight == min(loads)]
    chosen = {id(least_loaded(pool, figures, turn + number)) for number in range(len(equals))}
    assert chosen == {id(one) for one in equals}


@given(some.integers(1, 6), some.integers(1, 60))
def test_requests_that_stay_spread_evenly(count: int, requests: int) -> None:
    """Requests that all stay in flight differ by at most one between any two workers."""
    pool = tuple(Worker() for _ in range(count))
    figures = figures_of(pool)
    for turn in range(requests):
        least_loaded(pool, figures, turn).weighted_in_flight += 1
    loads = [one.weighted_in_flight for one in pool]
    assert max(loads) - min(loads) <= 1


@given(some.lists(some.integers(0, 40), min_size=2, max_size=6), some.integers(1, 300))
def test_a_stale_queue_draws_at_most_half_of_what_it_says(queues: list[int], requests: int) -> None:
    """However many requests come before the next reading, two workers differ by half their queues' difference."""
    pool = tuple(Worker(waiting=queue) for queue in queues)
    figures = figures_of(pool)
    for turn in range(requests):
        least_loaded(pool, figures, turn).weighted_in_flight += 1
    for one in pool:
        for other in pool:
            assert (
                one.weighted_in_flight - other.weighted_in_flight
                <= max(0, other.waiting - one.waiting) / 2 + 1
            )


@given(some.integers(0, 200))
def test_what_a_correction_overdoes_dies_out(excess: int) -> None:
    """Two equal workers that are read only between two floods: each reading at least halves what sets them apart."""
    pool = Worker(weighted_in_flight=100 + excess), Worker(weighted_in_flight=100)
    apart = [excess]
    for _ in range(12):
        for worker in pool:
            worker.waiting = worker.weighted_in_flight - 50  # it can run 50 at a time
        flood(pool, 4 * excess)
        apart.append(abs(pool[0].weighted_in_flight - pool[1].weighted_in_flight))
        for worker in pool:
            worker.weighted_in_flight -= 2 * excess  # and finishes as many as came
    assert all(after <= before / 2 + 1 for before, after in pairwise(apart))
    assert apart[-1] <= 2


def flood(pool: tuple[Worker, ...], requests: int) -> None:
    """This many requests come before the figures are read again."""
    figures = figures_of(pool)
    for turn in range(requests):
        least_loaded(pool, figures, turn).weighted_in_flight += 1


def test_what_is_worked_out_for_a_pool_is_kept_for_that_pool_alone() -> None:
    """The same object is not worked out twice; an equal one is another pool."""
    seen: list[int] = []
    of_pool = PoolCache(lambda pool: seen.append(len(pool)))
    pool = (Worker(), Worker())
    for _ in range(3):
        of_pool(pool)
    of_pool((*pool, Worker()))
    of_pool(pool)
    of_pool((*pool,))
    assert seen == [0, 2, 3, 2, 2]


def test_figures_are_read_again_before_they_are_old() -> None:
    """Within FRESH_S the figures of a pool are those read last; after that, or for another pool, they are new."""
    fresh, pool = FiguresCache(), (Worker(), Worker())
    before = fresh.of(pool, 10.0)
    pool[0].waiting = 8
    assert fresh.of(pool, 10.0 + FRESH_S / 2) is before
    assert fresh.of(pool, 10.0 + FRESH_S) == figures_of(pool) != before
    assert fresh.of(pool[:1], 10.0 + FRESH_S) == figures_of(pool[:1])
