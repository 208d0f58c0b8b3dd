"""Selectors: each policy keeps its promise, over pools whose workers come and go, and slugs get their weight."""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.balancing.load import load
from gateway.balancing.selection import (
    RequestView,
    Selector,
    max_load,
    policy_for,
    round_robin,
    selector_for,
    session_of,
)
from gateway.config.model_options import Options
from gateway.config.policies import (
    POLICIES,
    AnyPolicy,
    LeastInFlight,
    PowerOfTwo,
    PrefixAffinity,
    RoundRobin,
    Session,
)

ALL = [kind() for kind in POLICIES.values()]
NOTHING = RequestView([], {}, b"")


@dataclass(eq=False)
class Worker:
    """A candidate with figures of its own."""

    address: str = "10.0.0.1:8000"
    slug: str = "a"
    weighted_in_flight: int = 0
    waiting: float = 0.0
    kv_use: float = 0.0
    slow_start_factor: float = 1.0


Pool = tuple[Worker, ...]


def pool_of(*in_flight: int, slug: str = "a") -> Pool:
    """One worker for each figure."""
    return tuple(Worker(f"10.0.{slug}.{at}:8000", slug, figure) for at, figure in enumerate(in_flight))


def selector(policy: AnyPolicy, split: dict[str, float] | None = None, seed: int = 0) -> Selector[Worker]:
    return selector_for(Options(policy=policy, split=split), Random(seed))


def test_every_policy_has_a_selector_of_its_own() -> None:
    assert len({type(policy_for(policy, Random(0))) for policy in ALL}) == len(ALL)


def request(prompt: str = "", session: str = "", user: object = None) -> RequestView:
    """A request for a completion."""
    fields = {"prompt": prompt, "user": user}
    return RequestView([(b"x-session-id", session.encode())] if session else [], fields, orjson.dumps(fields))


pools = some.lists(some.integers(0, 40), min_size=1, max_size=8).map(lambda figures: pool_of(*figures))
requests = some.builds(request, some.text("ab", max_size=4000), some.text("xyz", max_size=3))
policies = some.sampled_from(ALL)


@given(policies, some.lists(some.tuples(pools, requests), max_size=12))
def test_the_chosen_one_is_of_the_pool(policy: AnyPolicy, turns: list[tuple[Pool, RequestView]]) -> None:
    """Whatever pools follow one another, nobody outside the one offered is chosen."""
    choice = selector(policy)
    for now, (pool, request) in enumerate(turns):
        assert choice.choose(pool, request, float(now)) in pool


@given(policies, pools, requests, some.integers())
def test_a_worker_already_tried_is_not_chosen_again(
    policy: AnyPolicy, pool: Pool, request: RequestView, seed: int
) -> None:
    """Choosing from a pool without a worker is how a retry goes elsewhere, whatever is remembered."""
    choice = selector(policy, seed=seed)
    tried = choice.choose(pool, request, 0.0)
    others = tuple(worker for worker in pool if worker is not tried)
    if others:
        assert choice.choose(others, request, 0.0) is not tried


@given(pools, requests, some.integers())
def test_least_in_flight_is_the_least_loaded(pool: Pool, request: RequestView, seed: int) -> None:
    """The default policy, at any turn."""
    chosen = selector(LeastInFlight(), seed=seed).choose(pool, request, 0.0)
    assert chosen.weighted_in_flight == min(worker.weighted_in_flight for worker in pool)


def test_the_queue_counts_as_soon_as_the_figures_are_read_again() -> None:
    """A worker with a queue of its own is passed over, though it has no more of our requests than the other."""
    choice, pool = selector(LeastInFlight()), pool_of(2, 2)
    choice.choose(pool, NOTHING, 0.0)
    pool[0].waiting = 6
    assert {choice.choose(pool, NOTHING, 1.0) for _ in range(6)} == {pool[1]}


@given(pools, some.integers())
def test_power_of_two_never_takes_the_most_loaded(pool: Pool, seed: int) -> None:
    """Of two workers the less loaded one: the busiest of all is left alone."""
    chosen = selector(PowerOfTwo(), seed=seed).choose(pool, NOTHING, 0.0)
    others = [worker.weighted_in_flight for worker in pool if worker is not chosen]
    assert not others or max(others) >= chosen.weighted_in_flight


def test_power_of_two_draws_every_pair() -> None:
    """Each worker but the busiest is chosen at some time; the idle one most often."""
    choice, pool = selector(PowerOfTwo()), pool_of(0, 1, 2, 3)
    chosen = Counter(choice.choose(pool, NOTHING, 0.0).weighted_in_flight for _ in range(400))
    assert set(chosen) == {0, 1, 2}
    assert chosen[0] > chosen[1] > chosen[2]


@given(pools, some.integers(), some.integers(1, 5))
def test_round_robin_takes_each_in_turn(pool: Pool, seed: int, laps: int) -> None:
    """After some laps all have had as many, whatever their load."""
    choice = selector(RoundRobin(), seed=seed)
    chosen = Counter(choice.choose(pool, NOTHING, 0.0) for _ in range(laps * len(pool)))
    assert set(chosen.values()) == {laps}


def test_round_robin_spares_a_slow_starter() -> None:
    """It gets its share of its turns, and all the others get some of the rest."""
    pool = pool_of(0, 0, 0, 0)
    pool[1].slow_start_factor = 0.25
    chosen = Counter(round_robin(pool, turn) for turn in range(4000))
    assert abs(chosen[pool[1]] - 250) < 10
    assert all(1200 < chosen[other] < 1300 for other in (pool[0], pool[2], pool[3]))


@given(some.text("xyz", min_size=1), pools, some.data())
def test_a_session_stays_until_its_worker_leaves(session: str, pool: Pool, data: some.DataObject) -> None:
    """Another worker's leaving does not move it, nor does another process, another order or any load."""
    before = selector(Session()).choose(pool, request(session=session), 0.0)
    gone = data.draw(some.sampled_from(pool))
    others = tuple(worker for worker in reversed(pool) if worker is not gone)
    before.weighted_in_flight += 100
    if gone is not before:
        assert selector(Session(), seed=1).choose(others, request(session=session), 0.0) is before


def test_sessions_spread() -> None:
    """Many sessions fall on all workers, none of which gets twice its part."""
    choice, pool = selector(Session()), pool_of(0, 0, 0, 0)
    chosen = Counter(choice.choose(pool, request(session=str(at)), 0.0) for at in range(400))
    assert len(chosen) == 4
    assert max(chosen.values()) < 200


def test_a_slow_starter_takes_its_own_sessions_little_by_little() -> None:
    """While its share grows, sessions move to it from the others, and none moves between the others."""
    pool, homes = pool_of(0, 0, 0), []
    for slow_start_factor in (0.1, 0.5, 1.0):
        pool[0].slow_start_factor = slow_start_factor
        choice = selector(Session())
        homes.append([choice.choose(pool, request(session=str(at)), 0.0) for at in range(300)])
    for earlier, later in pairwise(homes):
        assert all(after in (before, pool[0]) for before, after in zip(earlier, later, strict=True))
        assert earlier.count(pool[0]) < later.count(pool[0])


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (request(session="s", user="u"), b"s"),
        (request(user="u"), b"u"),
        (RequestView([], {"user": "\ud800"}, b""), b"\xed\xa0\x80"),
        (request(user=""), None),
        (request(user=7), None),
        (request(), None),
    ],
    ids=str,
)
def test_what_tells_a_session_apart(request_: RequestView, expected: bytes | None) -> None:
    """The header, else the body's `user`, if it is a text with something in it."""
    assert session_of(request_, b"x-session-id") == expected


def test_without_a_session_the_least_loaded_is_taken() -> None:
    """So with `prefix_affinity`, for a prompt that nobody has seen."""
    pool = pool_of(3, 0, 3)
    for policy in (Session(), PrefixAffinity()):
        assert selector(policy).choose(pool, request("x" * 2000), 0.0) is pool[1]


def conversation(name: str) -> str:
    return (name + " ") * 2000


def test_a_prompt_goes_where_its_beginning_is() -> None:
    """Each further turn of a conversation goes to the worker that had the first, though others have less to do."""
    choice, pool = selector(PrefixAffinity()), pool_of(0, 0, 0)
    home = choice.choose(pool, request(conversation("a")), 0.0)
    home.weighted_in_flight += 3
    for _ in range(3):
        assert choice.choose(pool, request(conversation("a") + "more"), 1.0) is home
    assert choice.choose(pool, request(conversation("b")), 1.0) is not home


def test_the_longest_known_prefix_wins() -> None:
    """Of two workers that know a prompt's beginning, the one that knows more of it, though it has more to do."""
    choice, pool = selector(PrefixAffinity()), pool_of(0, 9)
    system, tail = "s" * 3000, "t" * 3000
    assert choice.choose(pool, request(system), 0.0) is pool[0]
    pool[0].weighted_in_flight, pool[1].weighted_in_flight = 9, 0
    assert choice.choose(pool, request(system + tail), 1.0) is pool[1]
    pool[0].weighted_in_flight, pool[1].weighted_in_flight = 0, 2
    assert choice.choose(pool, request(system + tail), 2.0) is pool[1]
    assert choice.choose(pool, request(system), 2.0) is pool[0]


def test_a_shorter_prefix_elsewhere_counts_where_the_longest_is_overloaded() -> None:
    """Before a worker that knows nothing is taken, one that knows part of the prompt is."""
    choice, pool = selector(PrefixAffinity()), pool_of(0, 9, 9)
    system, tail = "s" * 3000, "t" * 3000
    choice.choose(pool, request(system), 0.0)
    pool[0].weighted_in_flight, pool[1].weighted_in_flight = 9, 0
    choice.choose(pool, request(system + tail), 1.0)
    pool[0].weighted_in_flight, pool[1].weighted_in_flight, pool[2].weighted_in_flight = 3, 40, 0
    assert choice.choose(pool, request(system + tail), 2.0) is pool[0]


def test_workers_that_know_as_much_take_turns() -> None:
    """With equal loads, a prompt that all know goes to each in turn, not to the last one again."""
    choice, pool = selector(PrefixAffinity()), pool_of(0, 0, 0)
    for idle in pool:
        for worker in pool:
            worker.weighted_in_flight = 0 if worker is idle else 99
        assert choice.choose(pool, request(conversation("a")), 0.0) is idle
    for worker in pool:
        worker.weighted_in_flight = 0
    chosen = [choice.choose(pool, request(conversation("a")), 1.0) for _ in range(6)]
    assert [chosen.count(worker) for worker in pool] == [2, 2, 2]


def test_a_prefix_is_not_followed_past_its_time() -> None:
    """A worker's own cache has other prompts in it by then."""
    choice, pool = selector(PrefixAffinity(ttl_s=60)), pool_of(0, 0)
    home = choice.choose(pool, request(conversation("a")), 0.0)
    home.weighted_in_flight += 1
    assert choice.choose(pool, request(conversation("a")), 61.0) is not home


def test_a_worker_that_has_left_is_not_followed() -> None:
    """What is known of it does no harm; should its address come back, it is followed again."""
    choice, pool = selector(PrefixAffinity()), pool_of(0, 5, 5)
    home = choice.choose(pool, request(conversation("a")), 0.0)
    rest = tuple(worker for worker in pool if worker is not home)
    assert choice.choose(rest, request(conversation("a")), 1.0) in rest
    returned = Worker(home.address)
    assert choice.choose((*rest, returned), request(conversation("a")), 2.0) is returned


@pytest.mark.parametrize(("least", "most"), [(1, 9), (8, 16), (16, 24), (20, 30)])
def test_the_slack_is_the_greater_of_two(least: float, most: float) -> None:
    """By default eight requests, and half as much again where that is more."""
    assert max_load(least, PrefixAffinity()) == most


loads = some.tuples(some.integers(0, 60), some.floats(0, 100), some.floats(0, 1), some.floats(0.1, 1))


@given(
    some.lists(some.tuples(some.sampled_from("abc"), some.lists(loads, min_size=3, max_size=3)), max_size=20),
    some.floats(0, 10),
    some.floats(0, 2),
)
def test_affinity_is_never_much_worse_than_least_in_flight(
    turns: list[tuple[str, list[tuple[int, float, float, float]]]], requests: float, ratio: float
) -> None:
    """Whatever it remembers and however loads change, the chosen worker is within the slack of the least loaded."""
    policy = PrefixAffinity(slack_requests=requests, slack_ratio=ratio)
    choice, pool = selector(policy), pool_of(0, 0, 0)
    for now, (name, figures) in enumerate(turns):
        for worker, its in zip(pool, figures, strict=True):
            worker.weighted_in_flight, worker.waiting, worker.kv_use, worker.slow_start_factor = its
        chosen = choice.choose(pool, request(conversation(name)), float(now))
        least = min(load(worker) for worker in pool)
        assert load(chosen) <= max_load(least, policy) * (1 + 1e-9)


@pytest.mark.parametrize("policy", ALL, ids=lambda policy: policy.name)
@pytest.mark.parametrize("weights", [{"a": 95.0, "b": 5.0}, {"a": 1.0, "b": 1.0}, {"a": 0.2, "b": 0.1}])
def test_slugs_get_requests_by_weight(policy: AnyPolicy, weights: dict[str, float]) -> None:
    """Exact within a few requests of 1,000, whatever the policy and however many workers a slug has."""
    pool = pool_of(0, 0, 0, slug="a") + pool_of(0, slug="b")
    choice = selector(policy, weights)
    chosen = Counter(choice.choose(pool, request(conversation("x")), 0.0).slug for _ in range(1000))
    assert abs(chosen["a"] - 1000 * weights["a"] / sum(weights.values())) < 6


def test_a_canary_gets_its_part_early() -> None:
    """One request of twenty, not fifty of a thousand at the end."""
    choice, pool = selector(LeastInFlight(), {"a": 95, "b": 5}), pool_of(0) + pool_of(0, slug="b")
    slugs = [choice.choose(pool, NOTHING, 0.0).slug for _ in range(1000)]
    assert max(len(run) for run in "".join(slugs).split("b")) < 60


def test_a_session_stays_with_its_slug() -> None:
    """Sessions divide by weight, about, and each keeps its worker."""
    choice = selector(Session(), {"a": 3, "b": 1})
    pool = pool_of(0, 0) + pool_of(0, 0, slug="b")
    homes = [choice.choose(pool, request(session=str(at)), 0.0) for at in range(400)]
    assert homes == [choice.choose(pool, request(session=str(at)), 0.0) for at in range(400)]
    assert 40 < sum(home.slug == "b" for home in homes) < 160


@given(
    some.dictionaries(some.sampled_from("abc"), some.integers(0, 5), min_size=1),
    some.sets(some.sampled_from("abc"), min_size=1),
    policies,
)
def test_who_gets_nothing_and_when(weights: dict[str, int], ready: set[str], policy: AnyPolicy) -> None:
    """A slug without workers leaves its part to the others; one without weight gets nothing unless it is alone."""
    weights = dict.fromkeys("abc", 0) | weights
    pool = tuple(worker for slug in sorted(ready) for worker in pool_of(0, 0, slug=slug))
    choice = selector(policy, {slug: float(weight) for slug, weight in weights.items()})
    chosen = {choice.choose(pool, request(session=str(at)), 0.0).slug for at in range(120)}
    assert chosen == ({slug for slug in ready if weights[slug]} or ready)


def test_the_policy_chooses_within_the_slug() -> None:
    """The least loaded worker of the slug, not of the pool."""
    choice = selector(LeastInFlight(), {"a": 1, "b": 1})
    pool = pool_of(0, 1) + pool_of(7, 6, slug="b")
    assert {choice.choose(pool, NOTHING, 0.0).weighted_in_flight for _ in range(20)} == {0, 6}
