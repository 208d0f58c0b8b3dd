"""A model's state as clients see it, and the sentence they get when it cannot serve."""

from dataclasses import dataclass

import pytest

from gateway.api.errors import GatewayError, ModelLoading, ModelNotFound, NoWorkerAvailable
from gateway.config.api_keys import ApiKey
from gateway.config.catalog import Card, Catalog, group_by_name
from gateway.fleet.engine_metrics import EngineMetrics
from gateway.fleet.fleet import Address, Fleet, ModelState, describe_start, describe_weights
from gateway.fleet.health import Failure, WorkerState
from gateway.fleet.workers import Worker

ONE, TWO, THREE = ("10.0.0.1", 8000), ("10.0.0.2", 8000), ("10.0.0.3", 8000)


@dataclass
class Clock:
    """Time that the test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def fleet_of(*slugs: str, clock: Clock | None = None) -> Fleet:
    """A fleet of slugs that all serve `shared`, each also under its own name."""
    cards = tuple(Card(slug, (slug, "shared"), f"o/{slug}") for slug in slugs)
    return Fleet.of(Catalog(cards, group_by_name(cards)), clock=clock or Clock())


def put(fleet: Fleet, slug: str, address: Address, state: str) -> Worker:
    """Adds a worker and leads it into this state."""
    joined, _ = fleet.refresh(slug, [*fleet.slugs[slug].workers, address])
    worker = joined[0]
    if state == "misnamed":
        fleet.names_differ(worker, "serves x but its card says a; check docker/a")
    elif state != "starting":
        fleet.probe_passed(worker, None)
    if state == "suspect":
        fleet.probe_failed(worker, "refused", certain=True)
    for _ in range(3 if state == "down" else 0):
        fleet.probe_failed(worker, "no answer")
    for _ in range(5 if state == "ejected" else 0):
        fleet.failed(worker, Failure.RESET)
    assert worker.state.value == state
    return worker


def test_nothing_seen_is_absent() -> None:
    """Neither a worker nor a weights job: absent, and the sentence is the command."""
    fleet = fleet_of("a")
    error = fleet.why_unavailable("a")
    assert fleet.model_state("a") is ModelState.ABSENT
    assert (type(error), error.message) == (
        ModelNotFound, "The model 'a' is declared but not started: docker compose up -d a",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            {"bytes_done": 43, "bytes_total": 100, "eta_s": 700},
            "is loading (weights 43 %, about 12 min); try",
        ),
        ({"bytes_done": 1, "bytes_total": 3, "eta_s": None}, "is loading (weights 33 %); try"),
        ({"bytes_done": 0, "bytes_total": 0}, "is loading (weights); try"),
        ({}, "is loading (weights); try"),
        ({"bytes_done": "1", "bytes_total": []}, "is loading (weights); try"),
    ],
)
def test_a_weights_job_is_loading(report: dict[str, object], words: str) -> None:
    """A running weights job makes a model loading, with its progress in words, whatever shape the report has."""
    fleet = fleet_of("a")
    fleet.slugs["a"].weights = report
    error = fleet.why_unavailable("a")
    assert fleet.model_state("a") is ModelState.LOADING
    assert isinstance(error, ModelLoading)
    assert words in error.message


@pytest.mark.parametrize(
    ("states", "expected", "error"),
    [
        (["starting"], ModelState.LOADING, ModelLoading),
        (["down"], ModelState.DOWN, NoWorkerAvailable),
        (["misnamed"], ModelState.DOWN, NoWorkerAvailable),
        (["down", "starting"], ModelState.LOADING, ModelLoading),
        (["misnamed", "starting"], ModelState.LOADING, ModelLoading),
        (["down", "ready"], ModelState.READY, None),
        (["starting", "ready"], ModelState.READY, None),
        (["suspect"], ModelState.READY, None),
        (["down", "suspect"], ModelState.READY, None),
        (["ready", "ejected"], ModelState.READY, None),
    ],
)
def test_the_best_worker_counts(
    states: list[str], expected: ModelState, error: type[GatewayError] | None
) -> None:
    """Of several workers of a slug the most hopeful one decides; a model is ready while anybody takes requests."""
    fleet = fleet_of("a")
    for number, state in enumerate(states):
        put(fleet, "a", (f"10.0.0.{number}", 8000), state)
    assert fleet.model_state("a") is expected
    assert bool(fleet.pool("a")) == (expected is ModelState.READY)
    if error is not None:
        assert type(fleet.why_unavailable("a")) is error


def test_a_misnamed_worker_is_told_to_clients() -> None:
    """Not `loading`, which would never end, but what is wrong and where to look."""
    fleet = fleet_of("a")
    put(fleet, "a", ONE, "misnamed")
    assert fleet.why_unavailable("a").message == (
        "A worker of the model 'a' serves x but its card says a; check docker/a"
    )


def test_two_slugs_are_one_pool() -> None:
    """A shared name is ready with either slug, and its workers are those of both."""
    fleet = fleet_of("a", "b")
    put(fleet, "a", ONE, "down")
    put(fleet, "b", TWO, "ready")
    assert fleet.ready_models() == ["shared", "b"]
    assert fleet.model_state("a") is ModelState.DOWN
    put(fleet, "a", THREE, "ready")
    assert [worker.host for worker in fleet.pool("shared")] == ["10.0.0.3", "10.0.0.2"]


def test_a_pool_is_the_same_object_until_a_state_changes() -> None:
    """Requests look it up; probes that change nothing leave it alone, a worker that leaves does not."""
    fleet = fleet_of("a")
    worker = put(fleet, "a", ONE, "ready")
    pool = fleet.pool("a")
    fleet.probe_passed(worker, None)
    fleet.probe_failed(worker, "no answer")
    fleet.tick()
    fleet.failed(worker, Failure.RESET)
    fleet.succeeded(worker)
    assert fleet.pool("a") is pool
    assert pool == (worker,)
    fleet.refresh("a", [])
    assert fleet.pool("a") == fleet.pool("unknown") == ()


def test_suspects_serve_where_nobody_is_ready() -> None:
    """With a ready worker a suspect one rests; without any it serves; one that is down never does."""
    fleet = fleet_of("a")
    suspect, ready = put(fleet, "a", ONE, "suspect"), put(fleet, "a", TWO, "ready")
    put(fleet, "a", THREE, "down")
    assert fleet.pool("a") == (ready,)
    for _ in range(3):
        fleet.probe_failed(ready, "no answer")
    assert fleet.pool("a") == (suspect,)


def test_an_ejected_worker_serves_rather_than_nobody() -> None:
    """The others went down after its ejection: a doubtful worker is better than none."""
    fleet = fleet_of("a")
    other = put(fleet, "a", TWO, "ready")
    ejected = put(fleet, "a", ONE, "ejected")
    assert fleet.pool("a") == (other,)
    for _ in range(3):
        fleet.probe_failed(other, "no answer")
    assert fleet.pool("a") == (ejected,)


def test_the_last_worker_of_any_of_its_pools_is_not_ejected() -> None:
    """`shared` has another, its own name has not."""
    fleet = fleet_of("a", "b")
    worker, other = put(fleet, "a", ONE, "ready"), put(fleet, "b", TWO, "ready")
    for _ in range(50):
        fleet.failed(worker, Failure.UNAVAILABLE)
    assert worker.state is WorkerState.SUSPECT
    assert fleet.pool("a") == (worker,)
    assert fleet.pool("shared") == (other,)


def with_one_half_open(clock: Clock) -> tuple[Fleet, Worker, Worker]:
    """A ready worker, and one whose ejection is over."""
    fleet = fleet_of("a", clock=clock)
    other, worker = put(fleet, "a", TWO, "ready"), put(fleet, "a", ONE, "ejected")
    clock.now += 30
    fleet.tick()
    return fleet, other, worker


def test_one_request_at_a_time_is_on_trial() -> None:
    """A half-open worker is offered until a lease on it begins, and again when that ended without a verdict."""
    fleet, other, worker = with_one_half_open(Clock())
    assert worker.state is WorkerState.HALF_OPEN
    assert set(fleet.pool("a")) == {other, worker}
    with worker.lease():
        assert fleet.pool("a") == (other,)
    assert set(fleet.pool("a")) == {other, worker}
    with worker.lease():
        fleet.succeeded(worker)
        assert set(fleet.pool("a")) == {other, worker}
    assert (worker.state.value, worker.trials, worker.in_flight) == ("ready", 0, 0)


def test_a_trial_that_fails_ejects_again() -> None:
    """And its lease, which ends later, changes nothing any more."""
    fleet, other, worker = with_one_half_open(Clock())
    with worker.lease():
        fleet.failed(worker, Failure.CONNECT)
        assert worker.state is WorkerState.EJECTED
    assert fleet.pool("a") == (other,)
    assert fleet.ejections["a"] == 2


def test_a_trial_that_hangs_bars_no_later_one() -> None:
    """Another request's failure ended it; after the next ejection a trial is offered, though the first still hangs."""
    clock = Clock()
    fleet, other, worker = with_one_half_open(clock)
    with worker.lease():
        fleet.failed(worker, Failure.FIRST_BYTE)
        clock.now += 60
        fleet.tick()
        assert set(fleet.pool("a")) == {other, worker}


def test_transitions_are_told_and_counted() -> None:
    """Those that a request causes like those of a probe; what changes no state is none."""
    fleet, seen = fleet_of("a"), list[tuple[str, str, str]]()
    fleet.observe(lambda change: seen.append((change.before.value, change.after.value, change.reason)))
    worker = put(fleet, "a", ONE, "ready")
    for _ in range(5):
        fleet.failed(worker, Failure.RESET)
    assert [change[:2] for change in seen] == [("starting", "ready"), ("ready", "suspect")]
    assert seen[1][2] == worker.reason != ""
    assert fleet.transitions["a", WorkerState.READY, WorkerState.SUSPECT] == 1
    assert fleet.failures["a", Failure.RESET] == 5


def test_a_worker_shows_what_it_said_of_itself() -> None:
    """Its queue and its cache, until a probe in which it says nothing."""
    fleet = fleet_of("a")
    worker = put(fleet, "a", ONE, "ready")
    fleet.probe_passed(worker, EngineMetrics(waiting=7.0, kv_use=0.5))
    assert (worker.waiting, worker.kv_use) == (7.0, 0.5)
    fleet.probe_passed(worker, None)
    assert (worker.waiting, worker.kv_use) == (0.0, 0.0)


def test_a_card_has_limits_of_its_own() -> None:
    """A model whose prefill is long may stand still for longer, another for less."""
    card = Card("a", ("a",), "o/a", suspect_s=10, down_s=20)
    clock = Clock()
    fleet = Fleet.of(Catalog((card,), {"a": (card,)}), clock=clock)
    worker, states = put(fleet, "a", ONE, "ready"), []
    fleet.probe_passed(worker, EngineMetrics())
    for _ in range(12):
        fleet.probe_passed(worker, EngineMetrics(running=1, finished=1, marks=(1.0,)))
        states.append(worker.state.value)
        clock.now += 2
    assert states == ["ready"] * 5 + ["suspect"] * 5 + ["down"] * 2


def test_shares_grow_with_time() -> None:
    """Between probes too, which a tick is for."""
    clock = Clock()
    fleet = fleet_of("a", clock=clock)
    worker = put(fleet, "a", ONE, "starting")
    fleet.probe_failed(worker, "not yet")
    fleet.probe_passed(worker, None)
    clock.now += 30
    fleet.tick()
    assert worker.slow_start_factor == pytest.approx(0.55)


def test_an_unknown_model_is_told_the_others() -> None:
    """The sentence for an unknown model lists the ready ones, or says that none is."""
    fleet = fleet_of("a")
    assert fleet.why_unavailable("x").message.endswith("Declared: a, shared; none is ready")
    put(fleet, "a", ONE, "ready")
    assert fleet.why_unavailable("x").message.endswith("Ready: a, shared")


def test_a_key_is_told_only_of_models_that_it_may_use() -> None:
    """By name; who may use aliases alone is sent to the list, which has them."""
    fleet = fleet_of("a", "b")
    key, alias = ApiKey("k", models=frozenset({"a"})), ApiKey("k", models=frozenset({"short"}))
    assert fleet.not_found("b", key).message == "The model 'b' does not exist. Declared: a; none is ready"
    put(fleet, "a", ONE, "ready")
    put(fleet, "b", TWO, "ready")
    assert fleet.not_found("b", key).message == "The model 'b' does not exist. Ready: a"
    told = "The model 'b' does not exist. GET /v1/models lists what this API key may use"
    assert fleet.not_found("b", alias).message == told


def test_known_addresses_keep_their_worker() -> None:
    """A round that finds the same addresses changes nothing; doubles count once; what is gone leaves."""
    fleet = fleet_of("a")
    first, _ = fleet.refresh("a", [ONE, ONE])
    joined, left = fleet.refresh("a", [TWO, ONE])
    assert ([worker.host for worker in joined], left, len(first)) == (["10.0.0.2"], [], 1)
    assert fleet.slugs["a"].workers[ONE] is first[0]
    joined, left = fleet.refresh("a", [TWO])
    assert (joined, left) == ([], first)


def test_an_address_that_comes_back_is_a_new_worker() -> None:
    """A worker that left and came back starts over, not ready."""
    fleet = fleet_of("a")
    put(fleet, "a", ONE, "ready")
    fleet.refresh("a", [])
    joined, _ = fleet.refresh("a", [ONE])
    assert joined[0].state is WorkerState.STARTING


def test_a_report_without_an_eta_has_no_minutes() -> None:
    """Under a minute is about one; no estimate is no sentence about it."""
    assert describe_weights({"bytes_done": 1, "bytes_total": 2, "eta_s": 5}) == " (weights 50 %, about 1 min)"
    assert describe_weights({"bytes_done": 1, "bytes_total": 2}) == " (weights 50 %)"


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"phase": "loading", "percent": 43, "left_s": 290.0}, " (loading 43 %, about 5 min)"),
        ({"phase": "compiling", "left_s": 3}, " (compiling, about 1 min)"),
        ({"phase": "starting", "percent": None, "left_s": None}, " (starting)"),
        ({"phase": "weights-check", "trouble": "weights-corrupt"}, " (weights-corrupt)"),
        ({"phase": 7, "trouble": ["x"]}, ""),
        ({"phase": "ready"}, ""),
        ({}, ""),
    ],
)
def test_a_start_in_words(report: dict[str, object], said: str) -> None:
    assert describe_start(report) == said
