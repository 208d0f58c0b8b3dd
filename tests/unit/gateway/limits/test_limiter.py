"""What a key's request reserves, settles and is told."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.api.errors import GatewayError, QuotaExceeded, RateLimited
from gateway.config.api_keys import UNLIMITED, ApiKey, Limits
from gateway.limits.estimates import Cost, Used
from gateway.limits.limiter import FREE, Limiter, Reservation
from gateway.limits.refusals import duration
from gateway.limits.table import Table
from gateway.limits.window import Shape

NOVEMBER, DECEMBER = 1_795_900_000.0, 1_796_100_000.0  # 2026-11-28 and 2026-12-01, some hour


class Bench:
    """A limiter with a clock of each kind that the test sets."""

    def __init__(self, shape: Shape | None = None, **limits: int) -> None:
        self.now, self.wall = 1000.0, NOVEMBER
        self.key = ApiKey("a", "a", limits=Limits(**limits))
        self.limiter = Limiter(
            Table(shape=shape, rows=8), lambda: [self.key], lambda: self.now, lambda: self.wall
        )

    def ask(self, tokens_in: int = 0, tokens_out: int = 0) -> Reservation:
        return self.limiter.reserve(self.key, Cost(tokens_in, tokens_out))

    def refused(self, tokens_in: int = 0, tokens_out: int = 0) -> RateLimited:
        with pytest.raises(RateLimited) as caught:
            self.ask(tokens_in, tokens_out)
        return caught.value

    def used(self) -> dict[str, int]:
        return {use.limit: use.used for use in self.limiter.uses()}


def headers(error: GatewayError) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in error.headers()}


def lines(reservation: Reservation) -> dict[str, str]:
    return dict(line.split(": ") for line in reservation.lines.decode().splitlines())


def test_a_key_without_limits_reserves_nothing() -> None:
    """And has no row."""
    bench = Bench()
    bench.key = replace(bench.key, limits=UNLIMITED)
    assert bench.ask(10, 10) is FREE
    FREE.settle(Used(1, 1))
    assert FREE.lines == b""


def test_requests_a_minute() -> None:
    """The limit, and then 429 with the time to wait, until the first has left. A refused request counts for nothing."""
    bench = Bench(rpm=3)
    for left in (2, 1, 0):
        told = lines(bench.ask())
        assert told == {
            "x-ratelimit-limit-requests": "3",
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": "1m0.25s",
        }
    bench.now += 20.1
    for _ in range(2):
        error = bench.refused()
    assert (error.status, error.code, error.type) == (429, "rate_limited", "requests")
    assert error.message == "API key 'a' has used 3 of its 3 requests a minute (rpm): try again in 41 s"
    told = headers(error)
    assert (told["retry-after"], told["retry-after-ms"]) == ("41", "40150")
    assert (told["x-ratelimit-remaining-requests"], told["x-ratelimit-reset-requests"]) == ("0", "40.15s")
    bench.now += 40.149
    bench.refused()
    bench.now += 0.002
    bench.ask()
    assert bench.limiter.refusals == {("a", "rpm"): 3}


def test_tokens_are_settled_by_what_was_used() -> None:
    """Less than reserved comes back at once; more counts, and beyond the limit it is a debt."""
    bench = Bench(tpm_out=100)
    one = bench.ask(0, 80)
    error = bench.refused(0, 30)
    assert error.type == "tokens"
    assert error.message == (
        "API key 'a' has used 80 of its 100 completion tokens a minute, and this request may need 30 (tpm_out): "
        "try again in 61 s"
    )
    one.settle(Used(5, 10))
    one.settle(Used(5, 10))
    assert bench.used() == {"tpm_out": 10}
    bench.ask(0, 30).settle(Used(0, 290))
    assert bench.used() == {"tpm_out": 300}
    bench.refused(0, 1)
    bench.now += 61
    assert bench.used() == {"tpm_out": 200}
    bench.now += 61
    assert bench.used() == {"tpm_out": 100}
    bench.now += 61
    assert bench.used() == {"tpm_out": 0}


def test_a_request_larger_than_the_limit_is_not_refused_for_ever() -> None:
    """It takes all of a minute's limit."""
    bench = Bench(tpm_in=100, tpm_out=50)
    bench.ask(1000, 1000)
    assert bench.used() == {"tpm_in": 100, "tpm_out": 50}
    bench.now += 61
    bench.ask(1000, 1000)


def test_what_was_sent_to_no_worker_counts_for_nothing() -> None:
    """Requests, tokens and concurrency come back. What workers failed at counts as a request."""
    bench = Bench(rpm=2, tpm_in=10, tpm_out=10, concurrency=1, monthly_tokens=100)
    bench.ask(5, 5).settle(None)
    assert set(bench.used().values()) == {0}
    bench.ask(5, 5).settle(Used(0, 0))
    assert bench.used() == {"rpm": 1, "tpm_in": 0, "tpm_out": 0, "concurrency": 0, "monthly_tokens": 0}


def test_requests_at_a_time() -> None:
    """Until one ends, however it ends."""
    bench = Bench(concurrency=2)
    first, _ = bench.ask(), bench.ask()
    error = bench.refused()
    assert (error.type, headers(error)["retry-after"]) == ("requests", "1")
    assert "2 of its 2 requests at a time" in error.message
    first.settle(Used(0, 0))
    bench.ask()
    assert lines(first) == {}


def test_the_longest_wait_is_told_and_nothing_is_half_reserved() -> None:
    """Of two limits that refuse, that which takes longer."""
    bench = Bench(rpm=1, tpm_in=100)
    bench.ask(50)
    bench.now += 30
    other = replace(bench.key, limits=Limits(tpm_in=100))
    bench.limiter.reserve(other, Cost(50))
    error = bench.refused(60)
    assert "(tpm_in)" in error.message
    assert headers(error)["retry-after"] == "61"
    bench.now += 31
    assert bench.used() == {"rpm": 0, "tpm_in": 50}


def test_tokens_in_headers_are_those_that_are_scarcer() -> None:
    """OpenAI has one pair: it tells of prompt or of completion tokens, whichever has less left by share."""
    bench = Bench(tpm_in=1000, tpm_out=100)
    told = lines(bench.ask(500, 10))
    assert (told["x-ratelimit-limit-tokens"], told["x-ratelimit-remaining-tokens"]) == ("1000", "500")
    told = lines(bench.ask(0, 60))
    assert (told["x-ratelimit-limit-tokens"], told["x-ratelimit-remaining-tokens"]) == ("100", "30")


def test_a_month_that_is_used_up() -> None:
    """`insufficient_quota`, and clients are told not to try again; it names the day from which on there is more."""
    bench = Bench(monthly_tokens=100)
    bench.ask(40, 40).settle(Used(40, 50))
    with pytest.raises(QuotaExceeded) as caught:
        bench.ask(10, 10)
    error = caught.value
    assert (error.status, error.code, error.type) == (429, "insufficient_quota", "insufficient_quota")
    assert headers(error)["x-should-retry"] == "false"
    assert "used 90 of its 100 tokens this month" in error.message
    assert "wait until 2026-12-01 UTC" in error.message
    bench.ask(5, 5).settle(Used(5, 5))
    assert bench.used() == {"monthly_tokens": 100}


def test_tokens_of_the_month_that_others_hold() -> None:
    """They may come back, so a client may try again."""
    bench = Bench(monthly_tokens=100)
    held = bench.ask(60, 0)
    error = bench.refused(60, 0)
    assert (error.type, "in flight" in error.message) == ("tokens", True)
    held.settle(Used(10, 0))
    bench.ask(60, 0)


def test_the_month_follows_the_clock_forward_and_never_back() -> None:
    """A jump back, even into another month, forgives nothing; the next month begins at nothing."""
    bench = Bench(monthly_tokens=100)
    bench.ask(50, 0).settle(Used(50, 0))
    bench.wall -= 90 * 86400
    assert bench.used() == {"monthly_tokens": 50}
    bench.wall = DECEMBER
    assert bench.used() == {"monthly_tokens": 0}
    bench.ask(30, 0).settle(Used(30, 0))
    bench.wall = NOVEMBER
    assert bench.used() == {"monthly_tokens": 30}


def test_the_month_begins_with_what_the_record_tells() -> None:
    """A second process that tells the same adds nothing, and what is counted already stays."""
    bench = Bench(monthly_tokens=100)
    bench.limiter.seed_month({"a": 80, "b": 5})
    bench.ask(10, 0).settle(Used(10, 0))
    bench.limiter.seed_month({"a": 80})
    assert bench.used() == {"monthly_tokens": 90}


def test_a_wall_clock_that_jumps_moves_no_window() -> None:
    """They go by the monotonic clock."""
    bench = Bench(rpm=1)
    bench.ask()
    bench.wall += 86400
    bench.refused()
    bench.wall -= 10 * 86400
    assert headers(bench.refused())["retry-after"] == "61"


def test_limits_that_change_count_at_once_and_forget_nothing() -> None:
    """The key file makes a new key of the same name."""
    bench = Bench(rpm=2)
    bench.ask(), bench.ask()
    bench.refused()
    bench.key = ApiKey("a", "a", limits=Limits(rpm=3))
    bench.ask()
    bench.key = ApiKey("a", "a", limits=Limits(rpm=1))
    bench.refused()
    assert bench.used() == {"rpm": 3}


@given(
    some.lists(
        some.tuples(some.floats(0, 3), some.integers(0, 60), some.integers(0, 200), some.floats(0, 20)),
        min_size=1,
        max_size=80,
    )
)
def test_over_ten_windows_no_key_gets_more_than_its_limit(
    requests: list[tuple[float, int, int, float]],
) -> None:
    """Whatever is reserved and used: beyond the limit's rate a key gets at most what one window holds and what its
    requests used beyond their reservations, and that is a debt."""
    bench = Bench(Shape(slots=40, slot_ms=250), tpm_out=100)
    begun, open_ones, used = bench.now, list[tuple[float, Reservation, int]](), 0
    excess = 0
    for pause, wanted, really, lasts in requests:
        bench.now += pause
        for one in [one for one in open_ones if one[0] <= bench.now]:
            open_ones.remove(one)
            one[1].settle(Used(0, one[2]))
            used += one[2]
            excess += max(0, one[2] - one[1].cost.tokens_out)
        with suppress(RateLimited):
            open_ones.append((bench.now + lasts, bench.ask(0, wanted), really))
    windows = math.floor((bench.now - begun) / 10.25) + 1
    assert used <= 100 * windows + 100 + excess


@pytest.mark.parametrize(
    ("milliseconds", "told"),
    [(0, b"0ms"), (250, b"250ms"), (1000, b"1s"), (1500, b"1.5s"), (60_000, b"1m0s"), (61_250, b"1m1.25s")],
)
def test_durations_are_told_as_openai_does(milliseconds: int, told: bytes) -> None:
    """`250ms`, `1.5s`, `6m0s`."""
    assert duration(milliseconds) == told


def test_a_full_table_does_not_take_the_metrics_away() -> None:
    """Keys that have no row are left out."""
    keys = [ApiKey(f"k{n}", f"k{n}", limits=Limits(rpm=5)) for n in range(3)]
    limiter = Limiter(Table(rows=2), lambda: keys)
    for key in keys[:2]:
        limiter.reserve(key, Cost())
    assert [(use.label, use.used) for use in limiter.uses()] == [("k0", 1), ("k1", 1)]
