"""A model's state as clients see it, and the sentence they get when it cannot serve."""

import pytest

from gateway.cards import Card, Catalog, group_by_name
from gateway.errors import GatewayError, ModelLoading, ModelNotFound, NoWorkerAvailable
from gateway.fleet import Address, Fleet, ModelState, describe_weights
from gateway.workers import WorkerState

ONE, TWO = ("10.0.0.1", 8000), ("10.0.0.2", 8000)


def fleet_of(*slugs: str) -> Fleet:
    """A fleet of slugs that all serve `shared`, each also under its own name."""
    cards = tuple(Card(slug, (slug, "shared"), f"o/{slug}") for slug in slugs)
    return Fleet.of(Catalog(cards, group_by_name(cards)))


def put(fleet: Fleet, slug: str, address: Address, state: WorkerState) -> None:
    """Adds a worker in this state."""
    joined, _ = fleet.refresh(slug, [*fleet.slugs[slug].workers, address])
    joined[0].state = state


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
        (["down", "starting"], ModelState.LOADING, ModelLoading),
        (["down", "ready"], ModelState.READY, None),
        (["starting", "ready"], ModelState.READY, None),
    ],
)
def test_the_best_worker_counts(
    states: list[str], expected: ModelState, error: type[GatewayError] | None
) -> None:
    """Of several workers of a slug the most hopeful one decides."""
    fleet = fleet_of("a")
    for number, state in enumerate(states):
        put(fleet, "a", (f"10.0.0.{number}", 8000), WorkerState(state))
    assert fleet.model_state("a") is expected
    if error is not None:
        assert type(fleet.why_unavailable("a")) is error


def test_two_slugs_are_one_pool() -> None:
    """A shared name is ready with either slug, and its workers are those of both."""
    fleet = fleet_of("a", "b")
    put(fleet, "a", ONE, WorkerState.DOWN)
    put(fleet, "b", TWO, WorkerState.READY)
    assert fleet.ready_models() == ["shared", "b"]
    assert fleet.model_state("a") is ModelState.DOWN
    put(fleet, "a", ("10.0.0.3", 8000), WorkerState.READY)
    pool = fleet.ready_workers(fleet.catalog.resolve("shared"))
    assert [worker.host for worker in pool] == ["10.0.0.3", "10.0.0.2"]


def test_an_unknown_model_is_told_the_others() -> None:
    """The sentence for an unknown model lists the ready ones, or says that none is."""
    fleet = fleet_of("a")
    assert fleet.why_unavailable("x").message.endswith("Declared: a, shared; none is ready")
    put(fleet, "a", ONE, WorkerState.READY)
    assert fleet.why_unavailable("x").message.endswith("Ready: a, shared")


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
    put(fleet, "a", ONE, WorkerState.READY)
    fleet.refresh("a", [])
    joined, _ = fleet.refresh("a", [ONE])
    assert joined[0].state is WorkerState.STARTING


def test_a_report_without_an_eta_has_no_minutes() -> None:
    """Under a minute is about one; no estimate is no sentence about it."""
    assert describe_weights({"bytes_done": 1, "bytes_total": 2, "eta_s": 5}) == " (weights 50 %, about 1 min)"
    assert describe_weights({"bytes_done": 1, "bytes_total": 2}) == " (weights 50 %)"
