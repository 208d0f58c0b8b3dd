"""How fast a transfer goes is bounded from above and from below, on a clock of the test's own."""

import pytest

from model_cache.sources.rate_limit import RateLimit, TransferLimitError


class Clock:
    """Time that passes only while somebody sleeps, or when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def rate_limit(clock: Clock, most: int = 0, least: int = 0) -> RateLimit:
    return RateLimit(most, least, 10, clock, clock.sleep)


def test_without_a_limit_nobody_waits() -> None:
    """However much arrives."""
    clock = Clock()
    rate_limit(clock).count_arrived(1 << 40)
    assert clock.now == 100


def test_a_thousand_bytes_a_second() -> None:
    """Ten thousand bytes take ten seconds, in however many pieces."""
    clock = Clock()
    limited = rate_limit(clock, most=1000)
    for _ in range(20):
        limited.count_arrived(500)
    assert clock.now == pytest.approx(110)


def test_idle_time_is_not_saved_up() -> None:
    """After an hour in which nothing came the limit is what it was."""
    clock = Clock()
    limited = rate_limit(clock, most=1000)
    clock.now += 3600
    limited.count_arrived(1000)
    assert clock.now == pytest.approx(3701)


def test_too_little_for_too_long() -> None:
    """Less than the least over a window ends it; a slow second within a good window does not."""
    clock = Clock()
    judged = rate_limit(clock, least=1000)
    for _ in range(30):
        clock.now += 1
        judged.count_arrived(1000)
    clock.now += 5
    judged.count_arrived(10_000)
    clock.now += 10
    with pytest.raises(TransferLimitError, match="10,100 bytes in 15 s"):
        judged.count_arrived(100)


def test_what_was_too_slow_stays_so_until_a_transfer_begins() -> None:
    """The SDK tries again what its callback refuses; nothing is moved by that."""
    clock = Clock()
    judged = rate_limit(clock, least=1000)
    clock.now += 10
    for _ in range(3):
        with pytest.raises(TransferLimitError):
            judged.count_arrived(100)
    judged.begin()
    judged.count_arrived(100)


def test_waiting_is_not_slow() -> None:
    """A failed request and the pause after it belong to no window, also where that began before it."""
    clock = Clock()
    judged = rate_limit(clock, least=1000)
    for _ in range(5):
        began = judged.now()
        clock.now += 90
        judged.leave_out(began)
        clock.now += 1
        judged.count_arrived(1000)
    clock.now += 4
    judged.count_arrived(0)
    clock.now += 2
    with pytest.raises(TransferLimitError, match="5,000 bytes in 11 s"):
        judged.count_arrived(0)


def test_threads_that_wait_at_once_are_counted_once() -> None:
    """Eight that wait ten seconds leave ten out, and what is too slow stays so."""
    clock = Clock()
    judged = rate_limit(clock, least=1000)
    clock.now += 9
    began = judged.now()
    clock.now += 10
    for _ in range(8):
        judged.leave_out(began)
    judged.count_arrived(0)
    clock.now += 2
    for _ in range(2):
        with pytest.raises(TransferLimitError, match="0 bytes in 11 s"):
            judged.count_arrived(0)
        judged.leave_out(began)


def test_waiting_does_not_lengthen_a_listing() -> None:
    """Its bound in bytes is for all of it."""
    clock = Clock()
    judged = rate_limit(clock).of_listing(1000)
    judged.count_arrived(900)
    judged.leave_out(judged.now())
    with pytest.raises(TransferLimitError, match="more than 1,000 bytes"):
        judged.count_arrived(101)


def test_a_pause_between_transfers_does_not_count() -> None:
    """An hour of hashing between two downloads is not a slow download."""
    clock = Clock()
    judged = rate_limit(clock, least=1000)
    judged.count_arrived(100)
    clock.now += 3600
    judged.begin()
    clock.now += 9
    judged.count_arrived(10_000)
    clock.now += 1
    judged.count_arrived(0)
