"""The bytes of all bodies: bounded, given back whole, and never all of them in big bodies."""

from hypothesis import given
from hypothesis import strategies as some

from gateway.body.budget import SMALL, TINY, BodyBudget

MAX = 16 * SMALL


def test_what_is_kept_for_smaller_bodies() -> None:
    """Where the next big body is refused a small one is not, and where that is, a tiny one is not."""
    budget = BodyBudget(MAX)
    assert budget.take(14 * SMALL, 0, 0)
    assert not budget.take(2 * SMALL, 0, 0)
    assert budget.take(SMALL, 0, 0)
    assert not budget.take(SMALL, 0, 0)
    assert [budget.take(TINY, 0, 0) for _ in range(17)] == [True] * 16 + [False]
    assert budget.used == MAX
    assert budget.refusals == 3


def test_a_body_counts_as_what_it_declares() -> None:
    """However little of it has come: the beginnings of big bodies take nothing that is kept for small ones."""
    budget = BodyBudget(MAX)
    assert budget.take(14 * SMALL - 1, 0, 0)
    assert budget.take(1, 0, 2 * SMALL)
    assert not budget.take(1, 0, 2 * SMALL)
    budget.give(1, 2 * SMALL)
    assert budget.take(1, 0, 2 * SMALL)
    assert budget.take(1, 0, SMALL)


def test_what_is_declared_alone_takes_nothing() -> None:
    """It is told whether it would fit."""
    budget = BodyBudget(MAX)
    assert all(budget.fits(14 * SMALL) for _ in range(99))
    assert budget.used == 0
    assert budget.take(2 * SMALL, 0, 2 * SMALL)
    assert not budget.fits(14 * SMALL)
    assert budget.fits(SMALL)


def test_one_big_body_is_always_taken() -> None:
    """Whatever the budget, and with small ones beside it: else no body of that size could ever be served."""
    budget = BodyBudget(SMALL)
    for held in range(0, 50 * SMALL, SMALL):
        assert budget.take(SMALL, held, 50 * SMALL)
    assert not budget.fits(2 * SMALL)
    assert not budget.take(1, 0, 2 * SMALL)
    assert budget.take(TINY, 0, TINY)
    budget.give(50 * SMALL, 50 * SMALL)
    assert budget.take(2 * SMALL, 0, 2 * SMALL)


def test_a_body_may_grow_from_small_to_big() -> None:
    """As chunks come: it then counts as a big one, whole, and is given back as one."""
    budget = BodyBudget(MAX)
    assert budget.take(13 * SMALL, 0, 0)
    assert budget.take(TINY, 0, 0)
    assert budget.take(SMALL - TINY, TINY, 0)
    assert not budget.take(1, SMALL, 0)
    budget.give(13 * SMALL, 0)
    assert budget.take(SMALL, SMALL, 0)
    budget.give(2 * SMALL, 0)
    assert budget.used == 0


def test_what_holds_nothing_needs_no_room() -> None:
    """A request without a body is taken however full it is."""
    budget = BodyBudget(SMALL)
    assert budget.take(99 * SMALL, 0, 0)
    assert budget.fits(0)
    assert budget.take(0, 0, 0)
    assert budget.take(0, 0, 2 * SMALL)


SIZES = some.sampled_from([1, TINY, SMALL // 2, SMALL]) | some.integers(1, 3 * SMALL)


@given(
    some.lists(some.sampled_from([0, 0, TINY, SMALL, 3 * SMALL]), min_size=9, max_size=9),
    some.lists(some.tuples(some.integers(0, 8), SIZES)),
)
def test_any_bodies(lengths: list[int], steps: list[tuple[int, int]]) -> None:
    """Nine bodies grow and go in any order: what is used is what they hold, and above the most only for a single big
    one; what is kept for tiny ones, these get."""
    budget, held = BodyBudget(MAX), [0] * 9
    for body, more in steps:
        if lengths[body] and held[body] + more > lengths[body]:
            continue
        is_tiny = max(lengths[body], held[body] + more) <= TINY
        if budget.take(more, held[body], lengths[body]):
            held[body] += more
        else:
            assert not is_tiny
            budget.give(held[body], lengths[body])
            held[body] = 0
        assert budget.used == sum(held)
        big = [had for had, length in zip(held, lengths, strict=True) if max(had, length) > SMALL and had]
        assert budget.used <= MAX or len(big) == 1
    for size, length in zip(held, lengths, strict=True):
        budget.give(size, length)
    assert budget.used == budget._tiny == budget._small == budget._big == 0
