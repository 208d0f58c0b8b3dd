"""Choose the worker for a request. Each model has one selector, made from its policy and split. No I/O.

The decisions are pure functions. A selector adds what it must remember between requests: a running number, what it
computed for the last pool, and which workers got which prefixes. To exclude a worker, pass a pool without it."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Generic, Protocol, assert_never

from gateway.balancing.load import Candidate, FiguresCache, PoolCache, W, least_loaded, load
from gateway.balancing.prefixes import PrefixTable, prefixes_of
from gateway.balancing.rendezvous import fraction, number_of, preferred
from gateway.config.model_options import Options
from gateway.config.policies import AnyPolicy, LeastInFlight, PowerOfTwo, PrefixAffinity, RoundRobin, Session
from gateway.http import headers


@dataclass(slots=True)
class RequestView:
    """What policies see of a request. Making one copies nothing."""

    headers: headers.Headers
    fields: Mapping[str, object]  # members of the body that the gateway reads
    body: bytes
    salt: bytes = b""  # workers find a prompt in their cache only for requests of the same salt


class Selector(Protocol[W]):
    """Chooses workers for one model, or for one slug of a split. `Context` owns one per model."""

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        """Return one of `pool`, which is not empty. now: seconds of a clock that does not go back."""


def selector_for(options: Options, random: Random) -> Selector[W]:
    """Return a model's selector. random: also sets its first turn, so that several processes do not act alike."""
    if options.split is None:
        return policy_for(options.policy, random)
    return SplitSelector(options.split, options.policy, random)


def policy_for(policy: AnyPolicy, random: Random) -> Selector[W]:
    """Return a selector for one policy, without a split. Every policy in `AnyPolicy` needs a case; mypy checks it."""
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
        case LeastInFlight():
            return LeastLoadedSelector(turn)
    assert_never(policy)


class LeastLoadedSelector(Generic[W]):
    """`least_in_flight`: the worker with the least load; equals take turns. Other selectors fall back to it."""

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self._figures = FiguresCache()

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        if len(pool) == 1:
            return pool[0]
        self._turn += 1
        return least_loaded(pool, self._figures.of(pool, now), self._turn)


class PowerOfTwoSelector(Generic[W]):
    """`power_of_two`: the less loaded of two workers drawn at random, so that gateways do not all choose the same."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        if len(pool) == 1:
            return pool[0]
        return min(self._random.sample(pool, 2), key=load)


class RoundRobinSelector(Generic[W]):
    """`round_robin`: one worker after another."""

    def __init__(self, turn: int) -> None:
        self._turn = turn

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        self._turn += 1
        return round_robin(pool, self._turn)


def round_robin(pool: tuple[W, ...], turn: int) -> W:
    """Return the worker whose turn it is. One in slow start leaves part of its turns to the others, each in turn."""
    lap, index = divmod(turn, len(pool))  # a lap: one turn of each worker
    if len(pool) == 1 or fraction(lap) < pool[index].slow_start_factor:
        return pool[index]
    return pool[(index + 1 + lap % (len(pool) - 1)) % len(pool)]


class SessionSelector(Generic[W]):
    """`session`: the same worker for the same session; without a session, the least loaded worker."""

    def __init__(self, header: str, turn: int) -> None:
        self._header = header.encode()
        self._numbers: PoolCache[W, list[int]] = PoolCache(numbers_of)
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
    """Return the session's key: the header's value, else the body's `user`, even one that is no UTF-8; else None."""
    value = headers.get(request.headers, header)
    if value:
        return value
    user = request.fields.get("user")
    return user.encode(errors="surrogatepass") if isinstance(user, str) and user else None


def numbers_of(pool: tuple[Candidate, ...]) -> list[int]:
    """Return the hash of each worker's address, in the pool's order, for `preferred`."""
    return [number_of(worker.address.encode()) for worker in pool]


class PrefixAffinitySelector(Generic[W]):
    """`prefix_affinity`: the worker that got most of the prompt's beginning before, unless it is overloaded."""

    def __init__(self, settings: PrefixAffinity, table: PrefixTable, turn: int) -> None:
        self._settings = settings
        self._table = table
        self._least: LeastLoadedSelector[W] = LeastLoadedSelector(turn)
        self._by_address: PoolCache[W, dict[str, W]] = PoolCache(by_address)

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        """Return the best holder, else the least loaded worker, and remember that it gets this prompt. A pool of one is
        asked and told nothing: there is no choice."""
        if len(pool) == 1:
            return pool[0]
        settings, least = self._settings, self._least.choose(pool, request, now)
        prefixes = prefixes_of(request.body, settings.block_bytes, settings.blocks, request.salt)
        known = (self._table.holders(prefix, now) for prefix in reversed(prefixes))  # longest first
        chosen = best_holder(self._by_address(pool), known, least, max_load(load(least), settings))
        self._table.remember(prefixes, chosen.address, now)
        return chosen


def by_address(pool: tuple[W, ...]) -> dict[str, W]:
    """Return the workers of `pool` by address, as the prefix table names holders."""
    return {worker.address: worker for worker in pool}


def max_load(least: float, settings: PrefixAffinity) -> float:
    """Return the load beyond which prefix affinity passes a worker over. least: the least load in the pool."""
    return least + max(settings.slack_requests, settings.slack_ratio * least)


def best_holder(workers: Mapping[str, W], known: Iterable[tuple[str, ...]], least: W, most: float) -> W:
    """Return the least loaded holder of the longest prefix that has a holder with a load of at most `most`. known: each
    prefix's holders by address, longest prefix first; not all are in the pool. least: the pool's least loaded worker,
    which wins if it is a holder, and is returned if no holder qualifies."""
    for addresses in known:
        present = [workers[address] for address in addresses if address in workers]
        if least in present:
            return least
        best = min(present, key=load, default=None)
        if best is not None and load(best) <= most:
            return best
    return least


@dataclass(frozen=True, slots=True)
class PoolParts(Generic[W]):
    """A pool divided by slug, for a split: slugs that get requests, in one order in all lists. cumulative: the weights
    added up; numbers: hashes of the slugs."""

    slugs: list[str]
    pools: list[tuple[W, ...]]
    weights: list[float]
    cumulative: list[float]
    numbers: list[int]


class SplitSelector(Generic[W]):
    """Divides requests among the slugs that serve a model by weight; the policy then chooses among a slug's workers.
    With the policy `session`, a session stays with its slug. With others, slugs take turns in proportion to weight."""

    def __init__(self, weights: Mapping[str, float], policy: AnyPolicy, random: Random) -> None:
        self._turn = random.getrandbits(32)
        self._header = policy.header.encode() if isinstance(policy, Session) else None
        self._parts: PoolCache[W, PoolParts[W]] = PoolCache(lambda pool: parts_of(pool, weights))
        self._policies: dict[str, Selector[W]] = {slug: policy_for(policy, random) for slug in weights}

    def choose(self, pool: tuple[W, ...], request: RequestView, now: float) -> W:
        """Choose a slug, then let that slug's own selector choose one of its workers."""
        parts = self._parts(pool)
        at = self._choose_part(parts, request) if len(parts.slugs) > 1 else 0
        return self._policies[parts.slugs[at]].choose(parts.pools[at], request, now)

    def _choose_part(self, parts: PoolParts[W], request: RequestView) -> int:
        """Return the index in `parts` of the slug that gets the request: its session's, else the next in turn."""
        session = session_of(request, self._header) if self._header else None
        if session is not None:
            return preferred(number_of(session), parts.numbers, parts.weights)
        self._turn += 1
        return part_at(fraction(self._turn), parts.cumulative)


def part_at(point: float, cumulative: Sequence[float]) -> int:
    """Return the index of the part that `point`, in [0, 1), falls into. cumulative: the weights added up. `min`, since
    a product near the end may be rounded up to it."""
    return min(bisect_right(cumulative, point * cumulative[-1]), len(cumulative) - 1)


def parts_of(pool: tuple[W, ...], weights: Mapping[str, float]) -> PoolParts[W]:
    """Divide `pool` among its slugs with a weight above 0; if there are none, equally among all of its slugs. All of
    them are in `weights`: `faults_of_split` checks it."""
    by_slug: dict[str, list[W]] = {}
    for worker in pool:
        by_slug.setdefault(worker.slug, []).append(worker)
    positive = {slug: weights[slug] for slug in by_slug if weights[slug] > 0} or dict.fromkeys(by_slug, 1.0)
    return PoolParts(
        slugs=list(positive),
        pools=[tuple(by_slug[slug]) for slug in positive],
        weights=list(positive.values()),
        cumulative=list(accumulate(positive.values())),
        numbers=[number_of(slug.encode()) for slug in positive],
    )
