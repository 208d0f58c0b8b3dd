"""The sliding window against a slow exact model: never more than the limit in any minute, and all of it usable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from gateway.limits.window import DEBT, Shape, Window

SHAPE = Shape(slots=8, slot_ms=10)
LENGTH_MS = 80


def window(shape: Shape = SHAPE) -> tuple[Window, memoryview]:
    words = memoryview(bytearray(8 * (5 + shape.words))).cast("q")
    return Window(words, 5, shape), words


def most_in_any_window(taken: list[tuple[int, int]]) -> int:
    """The highest sum of amounts that any stretch of LENGTH_MS holds, by trying each that ends with one."""
    return max(
        (sum(n for t, n in taken if end - LENGTH_MS <= t <= end) for end, _ in taken),
        default=0,
    )


@given(
    some.integers(1, 20),
    some.lists(some.tuples(some.integers(0, 100), some.integers(1, 20)), max_size=60),
)
def test_never_more_than_the_limit_in_any_stretch(limit: int, steps: list[tuple[int, int]]) -> None:
    """Whatever comes when: what is let through is at most the limit, and a refusal is one that the exact model makes
    too, for a window that is a slot longer at most."""
    sliding, _ = window()
    now_ms, taken = 10_000, list[tuple[int, int]]()
    for pause, wanted in steps:
        now_ms += pause
        amount = min(wanted, limit)
        if sliding.advance(now_ms // SHAPE.slot_ms, limit) + amount <= limit:
            sliding.take(amount)
            taken.append((now_ms, amount))
        else:
            recent = sum(n for t, n in taken if now_ms - t < LENGTH_MS + SHAPE.slot_ms)
            assert recent + amount > limit
    assert most_in_any_window(taken) <= limit


@given(
    some.integers(1, 20),
    some.lists(
        some.tuples(some.integers(0, 9), some.integers(1, 10), some.integers(0, 30), some.integers(0, 12)),
        max_size=60,
    ),
)
def test_what_is_used_beyond_the_reservation_is_paid_back(
    limit: int, requests: list[tuple[int, int, int, int]]
) -> None:
    """Requests reserve and settle later, for less or more: a window holds at most its limit, its sum is that of its
    slots, and what is let through is all used within the limit's rate, with one request's excess at most."""
    sliding, words = window()
    slot, open_ones, used_up, excess = 1000, list[tuple[int, int, int, int]](), 0, 0
    for pause, wanted, used, lasts in requests:
        slot += pause
        sliding.advance(slot, limit)
        for one in [one for one in open_ones if one[0] <= slot]:
            open_ones.remove(one)
            _, reserved, really, at = one
            if really < reserved:
                sliding.give_back(reserved - really, at)
            else:
                sliding.charge(really - reserved, limit)
                excess += really - reserved
            used_up += really
        amount = min(wanted, limit)
        if sliding.advance(slot, limit) + amount <= limit:
            open_ones.append((slot + lasts, amount, used, sliding.take(amount)))
        slots = list(words[8 : 8 + SHAPE.kept])
        assert 0 <= sum(slots) == words[6] <= limit
        assert words[5 + DEBT] >= 0
    spans = (slot - 1000) // SHAPE.kept + 1
    assert used_up <= spans * limit + excess + limit


@given(some.integers(1, 15), some.lists(some.tuples(some.integers(0, 12), some.integers(1, 15)), min_size=1))
def test_the_wait_that_is_told_is_exact(limit: int, steps: list[tuple[int, int]]) -> None:
    """A request that is refused fits when it is told to come again, and not a slot earlier."""
    sliding, _ = window()
    slot = 50
    for pause, wanted in steps:
        slot += pause
        amount = min(wanted, limit)
        fits = sliding.advance(slot, limit) + amount <= limit
        wait = sliding.wait(amount, limit)
        assert fits == (wait == 0)
        if not fits:
            assert sliding.advance(slot + wait - 1, limit) + amount > limit
            slot += wait
            assert sliding.advance(slot, limit) + amount <= limit
        sliding.take(amount)


def test_all_of_a_minutes_limit_is_usable() -> None:
    """With demand without end, ten minutes of 600 a minute let through 6,000 but for a slot's part; never more."""
    shape = Shape()
    sliding, _ = window(shape)
    passed = 0
    for now_ms in range(0, 600_000, 20):
        if sliding.advance(now_ms // shape.slot_ms + 1, 600) < 600:
            sliding.take(1)
            passed += 1
    assert 0.99 * 6000 <= passed <= 6000


def test_a_debt_is_paid_before_anything_else() -> None:
    """An answer of ten windows' tokens takes ten windows to pay, in which nothing is let through; then all is."""
    sliding, _ = window()
    sliding.advance(100, 10)
    sliding.take(1)
    sliding.charge(99, 10)
    blocked = 0
    while sliding.advance(100 + blocked, 10) + 1 > 10:
        blocked += 1
    assert 9 * SHAPE.kept <= blocked <= 10 * SHAPE.kept
    assert sliding.advance(100 + blocked + SHAPE.kept, 10) == 0


@given(
    some.integers(1, 20),
    some.lists(some.tuples(some.integers(0, 40), some.integers(0, 12), some.integers(0, 90)), max_size=30),
)
def test_debts_are_paid_while_nobody_asks(limit: int, steps: list[tuple[int, int, int]]) -> None:
    """A window that is looked at only when a request comes is as one that is looked at in each slot."""
    (rare, _), (often, _) = window(), window()
    slot = 100
    for pause, wanted, excess in steps:
        for _ in range(pause):
            slot += 1
            often.advance(slot, limit)
        amount = min(wanted, limit)
        assert rare.advance(slot, limit) == often.advance(slot, limit)
        assert rare.wait(amount, limit) == often.wait(amount, limit)
        for one in (rare, often):
            if one.wait(amount, limit) == 0:
                one.take(amount)
                one.charge(excess, limit)


def test_a_debt_of_any_size_is_paid_at_once() -> None:
    """In no more steps than a few windows have slots, or one request would block all others."""
    sliding, words = window()
    sliding.advance(100, 7)
    sliding.charge(10**15, 7)
    idle = SHAPE.kept * 10**12
    assert sliding.advance(100 + idle, 7) == 10**15 - 7 * 10**12
    assert words[5 + DEBT] == 10**15 - 7 * 10**12 - 7


@given(some.integers(1, 20), some.integers(1, 300), some.integers(1, 20), some.integers(0, 30))
def test_the_wait_behind_a_debt_is_exact(limit: int, excess: int, wanted: int, pause: int) -> None:
    """A client that comes again when it is told, and not before, is let through then."""
    amount = min(wanted, limit)
    sliding, _ = window()
    sliding.advance(100, limit)
    sliding.take(limit // 2)
    sliding.advance(103, limit)
    sliding.charge(excess, limit)
    now = 103 + pause
    sliding.advance(now, limit)
    wait = sliding.wait(amount, limit)
    if wait:
        assert sliding.advance(now + wait - 1, limit) + amount > limit
    assert sliding.advance(now + wait, limit) + amount <= limit


def test_what_has_left_the_window_is_not_given_back() -> None:
    """Nor is it taken from what came into the same place later."""
    sliding, _ = window()
    sliding.advance(100, 10)
    old = sliding.take(5)
    sliding.advance(100 + SHAPE.kept, 10)
    sliding.take(3)
    sliding.give_back(5, old)
    assert sliding.advance(100 + SHAPE.kept, 10) == 3


def test_a_clock_that_is_behind_counts_as_the_newest_slot() -> None:
    """Another process may have looked at the clock a moment later."""
    sliding, _ = window()
    sliding.advance(100, 10)
    sliding.take(4)
    assert sliding.advance(98, 10) == 4
    assert sliding.take(1) == 100
    assert sliding.whole_in() == SHAPE.kept


def test_a_limit_that_changes_counts_at_once() -> None:
    """What was counted stays: a lower limit refuses until enough has left, a higher one lets in at once."""
    sliding, _ = window()
    sliding.advance(100, 10)
    sliding.take(10)
    assert (sliding.wait(1, 5), sliding.wait(1, 20)) == (SHAPE.kept, 0)


def test_a_sum_that_was_cut_short_is_made_true_again() -> None:
    """A process was killed between the slot and the sum."""
    sliding, words = window()
    sliding.advance(100, 10)
    sliding.take(4)
    words[6] = 999
    sliding.recount()
    assert sliding.advance(100, 10) == 4
