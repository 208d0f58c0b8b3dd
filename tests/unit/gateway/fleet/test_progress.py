"""How long a worker has stood still, over successive readings."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.fleet.engine_metrics import EngineMetrics
from gateway.fleet.progress import Progress

NEW = EngineMetrics()
BUSY = EngineMetrics(running=1, finished=1, marks=(1.0, 0.5))
MOVED = EngineMetrics(running=1, finished=1, marks=(2.0, 0.5))


def heard(*readings: EngineMetrics, every_s: float = 2.0, in_flight: int = 0) -> Progress:
    """After these readings, so far apart, of a worker that was new at the first look."""
    progress = Progress().heard(NEW, 0, 0.0, longest_s=6.0)
    for number, metrics in enumerate(readings):
        progress = progress.heard(metrics, in_flight, number * every_s, longest_s=6.0)
    return progress


def test_standing_still_adds_up() -> None:
    """The same numbers again and again with requests running: the time counts, for both limits."""
    progress = heard(BUSY, BUSY, BUSY, BUSY)
    assert (progress.still_s, progress.hung_s) == (6.0, 6.0)


def test_any_change_is_progress() -> None:
    """One number that is another sets the clock back, a counter that was reset as well."""
    assert heard(BUSY, BUSY, BUSY, MOVED).still_s == 0.0
    assert heard(MOVED, MOVED, MOVED, BUSY).hung_s == 0.0


def test_nothing_is_judged_before_a_first_request_has_finished() -> None:
    """A first request may compile for minutes."""
    first = EngineMetrics(running=1, finished=0, marks=(1.0, 0.5))
    assert heard(*[first] * 500).still_s == 0.0


WARMED = EngineMetrics(finished=73, marks=(500.0, 0.0))
CASES = {
    "warmed before": ([WARMED], 73, 0.0),
    "one request since": ([WARMED], 74, 6.0),
    "an old worker, a new gateway": ([replace(WARMED, finished=5000)], 5001, 6.0),
    "warmed anew": ([WARMED, replace(WARMED, finished=90)], 73, 0.0),
    "started anew, not warmed": ([WARMED, replace(WARMED, finished=90)], 0, 0.0),
    "one request since the restart": ([WARMED, replace(WARMED, finished=90), WARMED], 74, 6.0),
}


@pytest.mark.parametrize(("before", "finished", "still_s"), CASES.values(), ids=CASES)
def test_what_had_finished_before_was_no_clients(
    before: Sequence[EngineMetrics], finished: int, still_s: float
) -> None:
    """A launcher warms its vLLM with requests of its own: a client's first may compile all the same."""
    progress = Progress()
    for number, metrics in enumerate(
        [*before, *[EngineMetrics(running=1, finished=finished, marks=(1.0,))] * 4]
    ):
        progress = progress.heard(metrics, 0, number * 2.0, longest_s=6.0)
    assert (progress.still_s, progress.hung_s) == (still_s, still_s)


def test_an_idle_worker_does_not_stand_still() -> None:
    """Nobody asks anything of it: nothing has to move."""
    idle = EngineMetrics(running=0, finished=1, marks=(1.0, 0.0))
    assert heard(*[idle] * 500).still_s == 0.0


def test_our_requests_alone_make_suspicious_not_hung() -> None:
    """An engine that died idle goes on saying that nothing runs; our own requests on it count for suspicion only."""
    idle = EngineMetrics(running=0, finished=1, marks=(1.0, 0.0))
    progress = heard(*[idle] * 4, in_flight=1)
    assert (progress.still_s, progress.hung_s) == (6.0, 0.0)


def test_a_gateway_that_slept_blames_nobody() -> None:
    """An hour between two readings counts as the longest gap, not as an hour."""
    assert heard(BUSY, BUSY, every_s=3600).hung_s == 6.0


def test_time_without_a_reading_is_not_judged() -> None:
    """What was not said is not held against the worker."""
    progress = heard(BUSY, BUSY).silent(100.0).heard(BUSY, 0, 102.0, 6.0)
    assert progress.hung_s == 4.0


def test_work_must_have_been_there_all_the_while() -> None:
    """A request that came just before a reading has not waited since the one before."""
    idle = EngineMetrics(running=0, finished=1, marks=(1.0, 0.5))
    assert heard(idle, BUSY).hung_s == 0.0
    assert heard(idle, BUSY, BUSY).hung_s == 2.0


def test_requests_that_wait_for_an_engine_are_work() -> None:
    """One that takes none of them up stands still."""
    waiting = EngineMetrics(waiting=1, finished=1, marks=(1.0, 0.5))
    assert heard(waiting, waiting).hung_s == 2.0


def test_when_it_moved_is_told() -> None:
    """For whoever waits for one of its answers: at the reading that showed it, and never by the first one."""
    assert heard().moved == -math.inf
    assert heard(BUSY, MOVED, MOVED).moved == 2.0
    new = EngineMetrics(running=1, marks=(0.0, 0.0)), EngineMetrics(running=1, marks=(0.0, 0.5))
    assert heard(*new).moved == 2.0
