"""A worker's health: every event in every state, and what holds whatever happens."""

import errno

import pytest
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.config.catalog import Card, Catalog, group_by_name
from gateway.fleet.engine_metrics import EngineMetrics
from gateway.fleet.fleet import Fleet, Transition
from gateway.fleet.health import (
    MIN_SLOW_START_FACTOR,
    Failure,
    Health,
    Rules,
    WorkerState,
    is_our_limit,
    names_differ,
    probe_failed,
    probe_passed,
    request_completed,
    request_failed,
    request_succeeded,
)
from gateway.fleet.progress import Progress
from gateway.fleet.workers import Worker

RULES = Rules()
NOW = 1000.0
BUSY = EngineMetrics(running=1, finished=1, marks=(1.0,))
READY = Health(started=True, alive=True, probed="", slow_start_from=NOW - 100)
EJECTED = request_failed(
    Health(started=True, alive=True, probed="", failures=4), Failure.RESET, RULES, NOW, spare=True
)
HUNG = Health(started=True, alive=True, probed="", progress=Progress(NOW, BUSY, still_s=180.0, hung_s=180.0))


def state(health: Health, now: float = NOW) -> str:
    return health.state(RULES, now).value


def passed(health: Health, times: int = 1, metrics: EngineMetrics | None = None, now: float = NOW) -> Health:
    for _ in range(times):
        health = probe_passed(health, metrics, 0, RULES, now)
    return health


def unanswered(health: Health, times: int = 1) -> Health:
    """Probes that ran out of time."""
    for _ in range(times):
        health = probe_failed(health, "no answer", RULES)
    return health


def failed(health: Health, *failures: Failure, spare: bool = True, now: float = NOW) -> Health:
    for failure in failures:
        health = request_failed(health, failure, RULES, now, spare=spare)
    return health


# probes


def test_a_first_start_takes_one_passed_probe() -> None:
    """A model that took minutes to load need not wait for a second look, nor a fleet whose gateway restarted."""
    assert state(Health()) == "starting"
    assert state(passed(Health())) == "ready"


def test_a_recovery_takes_rise_passed_probes() -> None:
    """What was down is up after two passes in a row; one that fails between starts over."""
    down = unanswered(READY, 3)
    assert [state(passed(down, times)) for times in (0, 1, 2)] == ["down", "down", "ready"]
    assert state(passed(unanswered(passed(down)))) == "down"
    assert passed(down).reason(RULES, NOW) == "1 of 2 probes have passed"


def test_a_fall_takes_failed_probes_in_a_row() -> None:
    """Two that run out of time change nothing, the third takes it down; one that passes between starts over."""
    assert [state(unanswered(READY, times)) for times in range(5)] == ["ready"] * 3 + ["down"] * 2
    assert state(unanswered(passed(unanswered(READY, 2)), 2)) == "ready"
    assert unanswered(READY, 3).reason(RULES, NOW) == "no answer"


def test_a_worker_that_never_was_ready_is_starting() -> None:
    """However many probes fail: it is loading its model."""
    assert state(unanswered(Health(), 500)) == "starting"


def test_a_certain_failure_is_not_waited_for() -> None:
    """Where nobody listens, or the worker says that it is not well, others are asked from now on, until it recovers."""
    doubted = probe_failed(READY, "connection refused", RULES, certain=True)
    assert (state(doubted), doubted.reason(RULES, NOW)) == ("suspect", "connection refused")
    assert state(passed(doubted)) == "ready"


def test_other_names_take_a_worker_out_at_once() -> None:
    """Another model at this address must get none of its requests; right names bring it back as any recovery."""
    other = names_differ(READY, "serves b but its card says a")
    assert (state(other), other.reason(RULES, NOW)) == ("misnamed", "serves b but its card says a")
    assert [state(passed(other, times)) for times in (1, 2)] == ["down", "ready"]
    assert state(passed(names_differ(Health(), "serves b"))) == "ready"
    assert [state(unanswered(other, times)) for times in (2, 3)] == ["misnamed", "down"]
    assert state(unanswered(names_differ(Health(), "serves b"), 3)) == "starting"


# requests


HEADLESS = [failure for failure in Failure if failure is not Failure.BROKEN]


@pytest.mark.parametrize("failure", HEADLESS)
def test_failures_in_a_row_eject(failure: Failure) -> None:
    """Four are borne, the fifth ejects, if there is another worker; a good answer between starts over."""
    assert state(failed(READY, *[failure] * 4)) == ("suspect" if failure is Failure.CONNECT else "ready")
    ejected = failed(READY, *[failure] * 5)
    assert state(ejected) == "ejected"
    assert ejected.reason(RULES, NOW) == (
        f"5 failed requests in a row, the last: {failure.value}: no requests for 30 s"
    )
    between = request_succeeded(failed(READY, *[failure] * 4), RULES, NOW)
    assert state(failed(between, Failure.RESET, Failure.RESET, Failure.RESET, Failure.RESET)) == "ready"


def test_answers_that_all_break_off_eject() -> None:
    """Each of them begins well, which excuses no breaking off; one that is completed does."""
    health, completed = READY, failed(READY, *[Failure.BROKEN] * 4)
    for _ in range(5):
        assert state(health) == "ready"
        health = failed(request_succeeded(health, RULES, NOW), Failure.BROKEN)
    assert state(health) == "ejected"
    completed = request_completed(completed, RULES, NOW)
    assert completed.is_settled
    assert request_completed(EJECTED, RULES, NOW) == EJECTED


def test_the_last_worker_is_not_ejected() -> None:
    """It is suspect, whatever its failures, until a good answer; with another worker there the next one ejects it."""
    assert state(failed(READY, *[Failure.FIRST_BYTE] * 4, spare=False)) == "ready"
    last = failed(READY, *[Failure.FIRST_BYTE] * 50, spare=False)
    assert state(last) == "suspect"
    assert "no other worker" in last.reason(RULES, NOW)
    assert state(passed(last, 10)) == "suspect"
    assert state(request_succeeded(last, RULES, NOW)) == "ready"
    assert state(failed(last, Failure.FIRST_BYTE)) == "ejected"


def test_a_passing_probe_ends_no_ejection() -> None:
    """Health that answers 200 says nothing of requests that fail; nor does an answer that comes late."""
    assert state(passed(EJECTED, 50)) == "ejected"
    health = READY
    for _ in range(5):
        health = passed(failed(health, Failure.FIRST_BYTE))
    assert state(health) == "ejected"
    assert state(request_succeeded(EJECTED, RULES, NOW)) == "ejected"
    assert failed(EJECTED, Failure.RESET) == EJECTED


def test_after_an_ejection_one_answer_decides() -> None:
    """Half open when its time is over: a success readmits the worker, with a small share; a failure ejects it again."""
    over = NOW + 30
    assert [state(EJECTED, NOW + 29.9), state(EJECTED, over)] == ["ejected", "half_open"]
    back = request_succeeded(EJECTED, RULES, over)
    assert (state(back, over), back.failures) == ("ready", 0)
    assert back.slow_start_factor(RULES, over) == MIN_SLOW_START_FACTOR
    again = failed(EJECTED, Failure.RESET, now=over)
    assert [state(again, over + 59.9), state(again, over + 60)] == ["ejected", "half_open"]
    assert "on trial" in EJECTED.reason(RULES, over)


def test_a_spared_worker_is_not_forgotten() -> None:
    """Another worker takes all requests since: once its ejection would be over, it gets one on trial all the same."""
    spared = failed(READY, *[Failure.FIRST_BYTE] * 5, spare=False)
    assert [state(spared, NOW + seconds) for seconds in (29.9, 30)] == ["suspect", "half_open"]
    worse = failed(spared, *[Failure.FIRST_BYTE] * 9, spare=False, now=NOW + 20)
    assert state(worse, NOW + 30) == "half_open"
    back = request_succeeded(spared, RULES, NOW + 30)
    assert (state(back, NOW + 30), back.slow_start_factor(RULES, NOW + 30)) == ("ready", 1.0)


def test_the_last_worker_on_trial_is_not_ejected_again() -> None:
    """Its trial fails with nobody else left: suspect."""
    assert state(failed(EJECTED, Failure.RESET, spare=False, now=NOW + 30), NOW + 30) == "suspect"


def lengths(pause_s: float) -> list[float]:
    """How long each of eight ejections lasts, `pause_s` after the worker was readmitted."""
    health, now, seen = READY, NOW, []
    for _ in range(8):
        health = failed(health, *[Failure.RESET] * 5, now=now)
        assert health.ejected_until is not None
        seen.append(health.ejected_until - now)
        now = health.ejected_until
        health = request_succeeded(health, RULES, now)
        now += pause_s
    return seen


def test_ejections_soon_after_another_last_longer() -> None:
    """30 s doubled up to 300 s; who behaved for 300 s starts anew."""
    assert lengths(10) == [30, 60, 120, 240, 300, 300, 300, 300]
    assert lengths(300) == [30] * 8


def test_a_refused_connection_is_evidence() -> None:
    """Suspect at once, until a probe passes; with one failed probe it counts for the fall like another."""
    refused = failed(READY, Failure.CONNECT)
    assert (state(refused), state(passed(refused))) == ("suspect", "ready")
    assert state(unanswered(failed(READY, Failure.CONNECT, Failure.CONNECT, spare=False))) == "down"
    assert state(failed(unanswered(READY), Failure.CONNECT, Failure.CONNECT, spare=False)) == "down"
    assert state(failed(READY, *[Failure.CONNECT] * 50, spare=False)) == "suspect"


@pytest.mark.parametrize("health", [Health(), unanswered(READY, 3), names_differ(READY, "b"), HUNG])
def test_old_news_changes_nothing(health: Health) -> None:
    """A failed request of a worker that gets none."""
    for failure in Failure:
        assert failed(health, failure) == health


def test_a_good_answer_does_not_revive() -> None:
    """Whoever fails its probes, or stands still, is not up for an answer that comes late."""
    for health in (Health(), unanswered(READY, 3), names_differ(READY, "b"), HUNG):
        assert state(request_succeeded(health, RULES, NOW)) == state(health)


def test_settled_means_that_a_good_answer_changes_nothing() -> None:
    """What the data path may skip, it may skip."""
    for health in (
        READY,
        Health(),
        HUNG,
        EJECTED,
        failed(READY, Failure.RESET),
        failed(READY, Failure.BROKEN),
        failed(READY, Failure.CONNECT),
    ):
        for judge in (request_succeeded, request_completed):
            assert not health.is_settled or judge(health, RULES, NOW + 30) == health


# progress


def still(seconds: int, metrics: EngineMetrics = BUSY, in_flight: int = 0) -> Health:
    """A ready worker that was new at the first look and has stood still so long since, read every 2 s."""
    health = probe_passed(READY, EngineMetrics(), 0, RULES, NOW)
    health = probe_passed(health, metrics, in_flight, RULES, NOW)
    for number in range(1, seconds // 2 + 1):
        health = probe_passed(health, metrics, in_flight, RULES, NOW + 2 * number)
    return health


def test_a_worker_that_stands_still_is_suspect_then_down() -> None:
    """60 s and 180 s of passing probes without progress; the reason says how long."""
    assert [state(still(seconds)) for seconds in (58, 60, 178, 180)] == [
        "ready",
        "suspect",
        "suspect",
        "down",
    ]
    assert still(180).reason(RULES, NOW) == "its requests have not moved for 180 s"


def test_only_progress_brings_it_back() -> None:
    """Not a passing probe, nor that its requests were taken away; any other number, and a restart's lower ones, do."""
    hung = still(200)
    assert state(passed(hung, 50, BUSY)) == "down"
    assert state(passed(hung, 50)) == "down"
    assert state(passed(hung, 50, EngineMetrics(running=0, finished=1, marks=(1.0,)))) == "down"
    for metrics in (EngineMetrics(running=1, finished=1, marks=(2.0,)), EngineMetrics(marks=(0.0,))):
        back = passed(hung, 1, metrics)
        assert (state(back), back.slow_start_factor(RULES, NOW)) == ("ready", MIN_SLOW_START_FACTOR)


def test_our_own_requests_alone_take_nobody_down() -> None:
    """An idle engine with an answer that its client is slow to read."""
    assert state(still(5000, EngineMetrics(finished=1, marks=(1.0,)), in_flight=1)) == "suspect"


# shares


def test_the_share_grows_after_a_start_and_a_recovery() -> None:
    """From a tenth to the whole in 60 s; a failed probe alone does not set it back, a recovery does.

    A worker that is ready at the first look has been so for longer than the gateway knows.
    """
    assert passed(Health()).slow_start_factor(RULES, NOW) == 1.0
    first = passed(unanswered(Health()))
    shares = [round(first.slow_start_factor(RULES, NOW + seconds), 3) for seconds in (0, 30, 60, 1000)]
    assert shares == [0.1, 0.55, 1.0, 1.0]
    assert passed(unanswered(READY)).slow_start_factor(RULES, NOW) == 1.0
    assert passed(unanswered(READY, 3), 2).slow_start_factor(RULES, NOW) == MIN_SLOW_START_FACTOR
    assert first.slow_start_factor(Rules(slow_start_s=0), NOW) == 1.0
    assert EJECTED.slow_start_factor(RULES, NOW + 30) == 1.0


@pytest.mark.parametrize(
    ("number", "ours"), [(errno.EMFILE, True), (errno.ENFILE, True), (errno.ECONNREFUSED, False)]
)
def test_our_own_limits_are_no_fault_of_a_worker(number: int, ours: bool) -> None:
    """Too many open files are the gateway's; a refused connection is not."""
    assert is_our_limit(OSError(number, "x")) is ours


# whatever happens, in a fleet of three workers: `shared` is served by all, `a` by two of them


class Storms(RuleBasedStateMachine):
    """Any sequence of events at any worker, and what must hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        cards = (Card("a", ("shared", "a"), "o/a"), Card("b", ("shared",), "o/b"))
        self.fleet = Fleet.of(Catalog(cards, group_by_name(cards)), clock=lambda: self.now)
        self.seen: list[Transition] = []
        self.fleet.observe(self.seen.append)

    @initialize()
    def join(self) -> None:
        self.fleet.refresh("a", [("10.0.0.1", 8000), ("10.0.0.2", 8000)])
        self.fleet.refresh("b", [("10.0.0.3", 8000)])
        self.states = {worker: worker.state for worker in self.fleet.workers()}

    def worker(self, number: int) -> Worker:
        return self.fleet.workers()[number]

    @rule(
        number=some.integers(0, 2),
        marks=some.integers(0, 1),
        running=some.integers(0, 1),
        finished=some.integers(0, 2),
        has_vitals=some.booleans(),
    )
    def probe_passes(self, number: int, marks: int, running: int, finished: int, has_vitals: bool) -> None:
        worker, before = self.worker(number), self.worker(number).state
        metrics = EngineMetrics(running, finished=finished, marks=(float(marks),)) if has_vitals else None
        self.fleet.probe_passed(worker, metrics)
        assert before is not WorkerState.EJECTED or worker.state is not WorkerState.READY

    @rule(number=some.integers(0, 2), certain=some.booleans())
    def probe_fails(self, number: int, certain: bool) -> None:
        self.fleet.probe_failed(self.worker(number), "no answer", certain=certain)

    @rule(number=some.integers(0, 2))
    def names_differ(self, number: int) -> None:
        self.fleet.names_differ(self.worker(number), "serves something else")

    @rule(number=some.integers(0, 2), failure=some.sampled_from(Failure), times=some.integers(1, 6))
    def requests_fail(self, number: int, failure: Failure, times: int) -> None:
        worker = self.worker(number)
        for _ in range(times):
            before = worker.state
            self.fleet.failed(worker, failure)
            if worker.state is WorkerState.EJECTED and before is not WorkerState.EJECTED:
                others = [one.state for one in self.fleet.workers() if one is not worker]
                assert others_of(worker, others) & {WorkerState.READY, WorkerState.SUSPECT}

    @rule(number=some.integers(0, 2))
    def request_succeeds(self, number: int) -> None:
        self.fleet.succeeded(self.worker(number))

    @rule(number=some.integers(0, 2))
    def request_completes(self, number: int) -> None:
        self.fleet.completed(self.worker(number))

    @rule(seconds=some.sampled_from([1, 2, 30, 301]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.fleet.tick()

    @invariant()
    def an_ejection_ends(self) -> None:
        """Within the longest one from now, by time alone."""
        for worker in self.fleet.workers():
            state = worker.health.state(Rules(), self.now + Rules().ejection_max_s)
            assert state is not WorkerState.EJECTED

    @invariant()
    def a_pool_is_empty_only_without_anybody(self) -> None:
        """As long as one worker answers its probes and moves, its models are served, and by nobody else."""
        for model, slugs in (("shared", "ab"), ("a", "a")):
            able = [w for w in self.fleet.workers() if w.slug in slugs and takes_requests(w)]
            assert bool(self.fleet.pool(model)) == bool(able)
            assert set(self.fleet.pool(model)) <= set(able)

    @invariant()
    def every_change_is_told_once(self) -> None:
        """The transitions told, one after another, lead from the states before to those now."""
        for transition in self.seen:
            assert self.states[transition.worker] is transition.before
            assert transition.before is not transition.after
            self.states[transition.worker] = transition.after
        self.seen.clear()
        assert self.states == {worker: worker.state for worker in self.fleet.workers()}

    @invariant()
    def whoever_is_not_ready_has_a_reason(self) -> None:
        for worker in self.fleet.workers():
            assert bool(worker.reason) == (worker.state is not WorkerState.READY)
            assert MIN_SLOW_START_FACTOR <= worker.slow_start_factor <= 1


def takes_requests(worker: Worker) -> bool:
    return worker.state.value in ("ready", "suspect", "half_open", "ejected")


def others_of(worker: Worker, states: list[WorkerState]) -> set[WorkerState]:
    """Of the workers beside this one those in its smallest pool: `a` has two, `shared` all three."""
    return set(states[:1]) if worker.slug == "a" else set(states)


TestStorms = Storms.TestCase
