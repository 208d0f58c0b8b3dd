"""The script in a real Redis decides as the table of one gateway does, whatever happens in whatever order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from gateway.api.errors import QuotaExceeded, RateLimited
from gateway.config.api_keys import ApiKey, Limits
from gateway.limits.estimates import Cost, Used
from gateway.limits.limiter import Limiter, Reservation
from gateway.limits.redis_limiter import limits_of, refusal_of
from gateway.limits.table import Table
from tests.integration.gateway.redis_server import MISSING, PROGRAM, RedisServer

CLOCK = "redis.call('HMGET', 'clock', 's', 'us')"  # in place of TIME: the test sets it
SCRIPT = files("gateway.limits").joinpath("limits.lua").read_text()
MONTH = 2026 * 12 + 10
START_MS = 1_795_000_000_000  # within that month


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all examples."""
    if PROGRAM is None:
        pytest.skip(MISSING)
    server = RedisServer()
    yield server
    server.kill()


class Pair:
    """One gateway's limiter and the script, with one clock, that are asked the same."""

    def __init__(self, redis: RedisServer, limits: Limits) -> None:
        self.client = redis.client
        self.client.flushall()
        self.key = ApiKey("one", limits=limits)
        self.now_ms = START_MS
        self.limiter = Limiter(Table(), list, lambda: self.now_ms / 1000, lambda: self.now_ms / 1000)
        self.script = self.client.register_script(SCRIPT.replace("redis.call('TIME')", CLOCK))
        self.held: list[tuple[Reservation, int]] = []
        self.client.zadd("processes", {"p": START_MS * 10})

    def call(self, *words: str | int) -> Sequence[int]:
        self.client.hset("clock", mapping={"s": self.now_ms // 1000, "us": self.now_ms % 1000 * 1000})
        keys = ["requests", "tokens_in", "tokens_out", "held", "month", "processes"]
        answer: Sequence[int] = self.script(keys, words)
        return answer

    def reserve(self, cost: Cost) -> None:
        """Both grant it, or refuse it for the same reason, in the same words."""
        limits = self.key.limits
        used = self.limiter.month_used("one")
        clamped = Cost(
            min(cost.tokens_in, limits.tpm_in or cost.tokens_in),
            min(cost.tokens_out, limits.tpm_out or cost.tokens_out),
        )
        amounts = (1, clamped.tokens_in, clamped.tokens_out)
        answer = self.call("reserve", "p", "g", used, *amounts, *limits_of(limits))
        if answer[0] == 0:
            self.held.append((self.limiter.reserve(self.key, cost), answer[1]))
            return
        with pytest.raises((RateLimited, QuotaExceeded)) as refused:
            self.limiter.reserve(self.key, cost)
        _, same = refusal_of(self.key, clamped, answer, MONTH)
        assert (str(same), same.headers()) == (str(refused.value), refused.value.headers())

    def settle(self, which: int, used: Used | None) -> None:
        if self.held:
            reservation, slot = self.held.pop(which % len(self.held))
            cost = reservation.cost
            amounts = (0, 0, 0) if used is None else (1, used.tokens_in, used.tokens_out)
            reservation.settle(used)
            self.call(
                "settle", "p", "g", self.limiter.month_used("one"), 1, cost.tokens_in, cost.tokens_out,
                *limits_of(self.key.limits)[:3], slot, *amounts,
            )  # fmt: skip


limit = some.none() | some.integers(1, 60)
counts = some.integers(0, 40)
used = some.none() | some.builds(Used, counts, counts)
steps = some.lists(
    some.tuples(some.just("reserve"), some.builds(Cost, counts, counts))
    | some.tuples(some.just("settle"), some.tuples(counts, used))
    | some.tuples(some.just("pass"), some.sampled_from((1, 250, 900, 10_000, 59_999, 60_250, 200_000))),
    max_size=30,
)


@given(some.builds(Limits, limit, limit, limit, some.none() | some.integers(1, 4), limit), steps)
@settings(max_examples=150, deadline=None)
def test_it_decides_as_one_gateway_does(redis: RedisServer, limits: Limits, steps: list) -> None:  # type: ignore[type-arg]
    """Grants, refusals with their messages and headers, debts, what is given back, the month."""
    pair = Pair(redis, limits)
    for what, with_what in steps:
        if what == "reserve":
            pair.reserve(with_what)
        elif what == "settle":
            pair.settle(*with_what)
        else:
            pair.now_ms += with_what
