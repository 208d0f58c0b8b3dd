"""The lease on a worker, and the choice among several."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.selection import least_in_flight
from gateway.workers import Worker


def worker(in_flight: int = 0) -> Worker:
    return Worker("a", "10.0.0.1", 8000, in_flight=in_flight)


def test_a_lease_ends_however_its_request_ends() -> None:
    """A request is in flight inside the lease, and not after it, even where it raised."""
    one = worker()

    def ends_badly() -> None:
        with one.lease(), one.lease():
            assert one.in_flight == 2
            raise RuntimeError

    with pytest.raises(RuntimeError):
        ends_badly()
    assert one.in_flight == 0


@given(some.lists(some.integers(0, 5), min_size=1, max_size=8), some.integers(0, 1000))
def test_the_choice_has_the_fewest_in_flight(loads: list[int], turn: int) -> None:
    """Whatever the turn, nobody offered has fewer requests than the one chosen."""
    workers = [worker(in_flight=load) for load in loads]
    assert least_in_flight(workers, turn).in_flight == min(loads)


@given(some.lists(some.integers(0, 2), min_size=1, max_size=8), some.integers(0, 1000))
def test_equals_take_turns(loads: list[int], turn: int) -> None:
    """As many turns as there are equals choose each of them once."""
    workers = [worker(in_flight=load) for load in loads]
    equals = [one for one in workers if one.in_flight == min(loads)]
    chosen = {id(least_in_flight(workers, turn + number)) for number in range(len(equals))}
    assert chosen == {id(one) for one in equals}


@given(some.integers(1, 6), some.integers(1, 60))
def test_requests_that_stay_spread_evenly(count: int, requests: int) -> None:
    """Requests that all stay in flight differ by at most one between any two workers."""
    workers = [worker() for _ in range(count)]
    for turn in range(requests):
        least_in_flight(workers, turn).in_flight += 1
    loads = [one.in_flight for one in workers]
    assert max(loads) - min(loads) <= 1
