"""A worker's states, the lease on it, and the choice among several."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.selection import least_in_flight
from gateway.workers import Worker, WorkerState, after_failure, after_success


def worker(state: WorkerState = WorkerState.STARTING, in_flight: int = 0) -> Worker:
    return Worker("a", "10.0.0.1", 8000, state=state, in_flight=in_flight)


def test_one_passed_probe_makes_a_worker_ready() -> None:
    """From any state; its failures are forgotten."""
    for state in WorkerState:
        one = worker(state)
        after_failure(one, "no answer", 3)
        assert after_success(one) is WorkerState.READY
        assert (one.failures, one.reason) == (0, "")


def test_a_ready_worker_falls_after_failures_in_a_row() -> None:
    """Two failures of three leave it ready, the third takes it down, and it stays down."""
    one, seen = worker(WorkerState.READY), []
    for _ in range(4):
        one.state = after_failure(one, "no answer", 3)
        seen.append(one.state.value)
    assert (seen, one.reason) == (["ready", "ready", "down", "down"], "no answer")


def test_a_worker_that_never_was_ready_is_not_down() -> None:
    """Failing probes of a starting worker leave it starting: it is loading its model."""
    one = worker()
    assert [after_failure(one, "no answer", 1) for _ in range(5)] == [WorkerState.STARTING] * 5


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
