"""What several gateways tell Redis, and what they make of its answers: without one."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.config.api_keys import ApiKey, Limits
from gateway.limits.estimates import Cost, Used
from gateway.limits.limiter import Limiter
from gateway.limits.redis_address import Address
from gateway.limits.redis_limiter import Months, RedisLimiter, Renewal, Reserve, Settle
from gateway.limits.table import Table

ADDRESS = Address("redis://none:1", "none", 1)
KEY = ApiKey("one", limits=Limits(monthly_tokens=100))
GRANTED = (0, 7, 0, 80, 0, 80, *[0] * 9)  # with 80 tokens of the month used, all at this gateway


class Wall:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


def shared(wall: Wall) -> tuple[Limiter, RedisLimiter]:
    limiter = Limiter(Table(), list, wall=wall)
    return limiter, RedisLimiter(limiter, ADDRESS, "here", lambda _: None, answer_s=1, is_open=False)


def test_a_month_that_has_ended_is_not_that_of_the_answer() -> None:
    """Else a key would begin the new month with what it used in the one before."""
    for is_over in (False, True):
        wall = Wall()
        limiter, redis = shared(wall)
        one = Reserve(redis, KEY, limiter.reserve(KEY, Cost(1)), lambda _: None)
        other = Months(redis, ["one"])
        one.words(), other.words()
        wall.now += is_over
        one.done(GRANTED)
        other.done([80])
        assert limiter.month_used("one") == (0 if is_over else 80)


def test_a_key_is_forgotten_once_redis_was_told_that_nothing_is_held() -> None:
    """Not if it was told of a request that has ended since: that settlement may be lost."""
    limiter, redis = shared(Wall())
    local = limiter.reserve(KEY, Cost(1))
    redis.grant(KEY, local, GRANTED)
    for held, is_kept in ((1, True), (0, False)):
        renewal = Renewal(redis, ["one"], is_new=True)
        assert renewal.words()[1][-2:] == [held, held]
        if held:
            Settle(redis, KEY, local.cost, 7, Used(0, 0)).failed()
        renewal.done([1])
        assert ("one" in redis._held) is is_kept


def test_a_key_whose_row_is_anothers_now_ends_nothing() -> None:
    """Its settlement has waited for Redis for more than an hour, in which as many others came as there are rows."""
    now = [0.0]
    limiter = Limiter(Table(rows=1), list, clock=lambda: now[0])
    redis = RedisLimiter(limiter, ADDRESS, "here", lambda _: None, answer_s=1, is_open=False)
    local = limiter.reserve(KEY, Cost(1))
    local.settle(Used(30, 0))
    now[0] += 4000
    limiter.reserve(ApiKey("two", limits=Limits(rpm=1)), Cost())
    assert Settle(redis, KEY, local.cost, 7, Used(30, 0)).words()[1][3] == 0
    asked = Months(redis, ["one"])
    assert asked.words()[1][-1] == 0
    asked.done([30])
