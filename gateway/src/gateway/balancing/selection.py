"""Which worker takes a request: a selector per model, made of the policy and the split that its operator chose.

The decisions are functions of what they are given; a selector adds the memory of its model: a running turn, what was
worked out for the last pool, and the prefixes its workers have seen. A worker is excluded by a pool without it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Generic, Protocol

from gateway.balancing.load import Candidate, FreshFigures, OfPool, W, least_loaded, load
from gateway.balancing.prefixes import PrefixTable, prefixes_of
from gateway.balancing.rendezvous import fraction, number_of, preferred
from gateway.config.model_options import Options
from gateway.config.policies import AnyPolicy, PowerOfTwo, PrefixAffinity, RoundRobin, Session
from gateway.http import headers


@dataclass(slots=True)
class RequestView:
    """A request, for the policies that look at it; making one copies nothing."""

    headers: headers.Headers
    fields: Mapping[str, object]  # of the body
    body: bytes


class Selector(Protocol[W]):
    """Chooses workers for one model."""

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        """One of `pool`, which is not empty. now: seconds of a clock that does not go back."""


def selector_for(options: Options, random: Random) -> Selector[W]:
    """A model's selector. `random` also sets where its turns begin, so that several processes do not act alike."""
    if options.split is None:
        return policy_for(options.policy, random)
    return SplitSelector(options.split, options.policy, random)


def policy_for(policy: AnyPolicy, random: Random) -> Selector[W]:
    """The selector of one policy, its memory empty."""
    turn = random.getrandbits(32)
    match policy:
        case PowerOfTwo():
            return PowerOfTwoSelector(random)
        case RoundRobin():
            return RoundRobinSelector(turn)
        case Session():
            return SessionSelector(policy.header, turn)
        case PrefixAffinity():
            return PrefixAffinitySelector(policy, PrefixTable(policy.entries, policy.ttl_s), turn)
    return LeastLoadedSelector(turn)


class LeastLoadedSelector(Generic[W]):
    """`least_in_flight`."""

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self._figures = FreshFigures()

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        if len(pool) == 1:
            return pool[0]
        self._turn += 1
        return least_loaded(pool, self._figures.of(pool, now), self._turn)


class PowerOfTwoSelector(Generic[W]):
    """`power_of_two`."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        if len(pool) == 1:
            return pool[0]
        return min(self._random.sample(pool, 2), key=load)


class RoundRobinSelector(Generic[W]):
    """`round_robin`."""

    def __init__(self, turn: int) -> None:
        self._turn = turn

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        self._turn += 1
        return round_robin(pool, self._turn)


def round_robin(pool: tuple[W, ...], turn: int) -> W:
    """The worker whose turn it is; one that starts slowly leaves part of its turns to the others, each in turn."""
    lap, index = divmod(turn, len(pool))
    if len(pool) == 1 or fraction(lap) < pool[index].slow_start_factor:
        return pool[index]
    return pool[(index + 1 + lap % (len(pool) - 1)) % len(pool)]


class SessionSelector(Generic[W]):
    """`session`."""

    def __init__(self, header: str, turn: int) -> None:
        self._header = header.encode()
        self._numbers: OfPool[W, list[int]] = OfPool(numbers_of)
        self._least: LeastLoadedSelector[W] = LeastLoadedSelector(turn)

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        if len(pool) == 1:
            return pool[0]
        session = session_of(request, self._header)
        if session is None:
            return self._least.choose(pool, request, now)
        return pool[
            preferred(number_of(session), self._numbers(pool), [worker.slow_start_factor for worker in pool])
        ]


def session_of(request: RequestView, header: bytes) -> bytes | None:
    """What tells a session apart: the header, else the body's `user`; None if there is neither."""
    value = headers.get(request.headers, header)
    if value:
        return value
    user = request.fields.get("user")
    return user.encode(errors="surrogatepass") if isinstance(user, str) and user else None


def numbers_of(pool: tuple[Candidate, ...]) -> list[int]:
    return [number_of(worker.address.encode()) for worker in pool]


class PrefixAffinitySelector(Generic[W]):
    """`prefix_affinity`."""

    def __init__(self, settings: PrefixAffinity, table: PrefixTable, turn: int) -> None:
        self._settings = settings
        self._table = table
        self._least: LeastLoadedSelector[W] = LeastLoadedSelector(turn)
        self._by_address: OfPool[W, dict[str, W]] = OfPool(by_address)

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        if len(pool) == 1:
            return pool[0]
        settings, least = self._settings, self._least.choose(pool, request, now)
        prefixes = prefixes_of(request.body, settings.block_bytes, settings.blocks)
        known = (self._table.holders(prefix, now) for prefix in reversed(prefixes))
        chosen = holder(self._by_address(pool), known, least, most_load(load(least), settings))
        self._table.remember(prefixes, chosen.address, now)
        return chosen


def by_address(pool: tuple[W, ...]) -> dict[str, W]:
    return {worker.address: worker for worker in pool}


def most_load(least: float, settings: PrefixAffinity) -> float:
    """The load beyond which a worker is passed over, where another has no more than `least`."""
    return least + max(settings.slack_requests, settings.slack_ratio * least)


def holder(workers: Mapping[str, W], known: Iterable[tuple[str, ...]], least: W, most: float) -> W:
    """The least loaded worker of the first of `known`, longest prefix first, that has one with at most `most` load.

    `least` is preferred to its equals, among which it has been chosen in rotation, and taken where there is none.
    """
    for addresses in known:
        present = [workers[address] for address in addresses if address in workers]
        if least in present:
            return least
        best = min(present, key=load, default=None)
        if best is not None and load(best) <= most:
            return best
    return least


@dataclass(frozen=True, slots=True)
class Parts(Generic[W]):
    """A pool by slug, without the slugs that get nothing. `marks`: the weights added up."""

    slugs: list[str]
    pools: list[tuple[W, ...]]
    weights: list[float]
    marks: list[float]
    numbers: list[int]


class SplitSelector(Generic[W]):
    """Divides requests among the slugs of a name by weight; the policy then chooses among the slug's workers.

    With `session` a session stays with its slug; otherwise the slugs take turns.
    """

    def __init__(self, weights: Mapping[str, float], policy: AnyPolicy, random: Random) -> None:
        self._turn = random.getrandbits(32)
        self._header = policy.header.encode() if isinstance(policy, Session) else None
        self._parts: OfPool[W, Parts[W]] = OfPool(lambda pool: parts_of(pool, weights))
        self._policies: dict[str, Selector[W]] = {slug: policy_for(policy, random) for slug in weights}

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        parts = self._parts(pool)
        at = self._place(parts, request) if len(parts.slugs) > 1 else 0
        return self._policies[parts.slugs[at]].choose(parts.pools[at], request, now)

    def _place(self, parts: Parts[W], request: RequestView) -> int:
        session = session_of(request, self._header) if self._header else None
        if session is not None:
            return preferred(number_of(session), parts.numbers, parts.weights)
        self._turn += 1
        return place_at(fraction(self._turn), parts.marks)


def place_at(point: float, marks: Sequence[float]) -> int:
    """The index of the part that `point`, in [0, 1), falls into."""
    return min(bisect_right(marks, point * marks[-1]), len(marks) - 1)


def parts_of(pool: tuple[W, ...], weights: Mapping[str, float]) -> Parts[W]:
    """The slugs that have workers and a weight; if none has both, those that have workers, in equal parts."""
    by_slug: dict[str, list[W]] = {}
    for worker in pool:
        by_slug.setdefault(worker.slug, []).append(worker)
    weighty = {slug: weights[slug] for slug in by_slug if weights[slug] > 0} or dict.fromkeys(by_slug, 1.0)
    return Parts(
        slugs=list(weighty),
        pools=[tuple(by_slug[slug]) for slug in weighty],
        weights=list(weighty.values()),
        marks=list(accumulate(weighty.values())),
        numbers=[number_of(slug.encode()) for slug in weighty],
    )
