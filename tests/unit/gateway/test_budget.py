"""The bytes of all bodies: bounded, given back whole, and never all of them in big bodies."""

from hypothesis import given
from hypothesis import strategies as some

from gateway.budget import SMALL, BodyBudget

MOST = 16 * SMALL


def test_big_bodies_leave_room_for_small_ones() -> None:
    """Where the next big body is refused, many small ones are not."""
    budget = BodyBudget(MOST)
    assert budget.take(14 * SMALL, 0)
    assert not budget.take(2 * SMALL, 0)
    assert budget.take(SMALL, 0)
    assert budget.take(SMALL, 0)
    assert not budget.take(SMALL, 0)
    assert budget.used == MOST


def test_one_big_body_is_always_taken() -> None:
    """Whatever the budget, and with small ones beside it: else no body of that size could ever be served."""
    budget = BodyBudget(SMALL)
    assert budget.take(50 * SMALL, 0)
    assert not budget.take(2 * SMALL, 0)
    assert budget.take(SMALL // 8, 0)
    budget.give(50 * SMALL)
    assert budget.take(2 * SMALL, 0)


def test_a_body_may_grow_from_small_to_big() -> None:
    """As chunks come: it then counts as a big one, whole, and is given back as one."""
    budget = BodyBudget(MOST)
    assert budget.take(13 * SMALL, 0)
    assert budget.take(SMALL // 2, 0)
    assert budget.take(SMALL // 2, SMALL // 2)
    assert not budget.take(1, SMALL)
    budget.give(13 * SMALL)
    assert budget.take(SMALL, SMALL)
    budget.give(2 * SMALL)
    assert budget.used == 0


def test_what_holds_nothing_needs_no_room() -> None:
    """A request without a body is taken however full it is."""
    budget = BodyBudget(SMALL)
    assert budget.take(99 * SMALL, 0)
    assert budget.take(0, 0)


@given(some.lists(some.tuples(some.integers(0, 5), some.integers(1, 3 * SMALL))))
def test_any_bodies(steps: list[tuple[int, int]]) -> None:
    """Six bodies grow and go in any order: what is used is what they hold, and never above the most."""
    budget, held = BodyBudget(MOST), [0] * 6
    for body, more in steps:
        if budget.take(more, held[body]):
            held[body] += more
        else:
            budget.give(held[body])
            held[body] = 0
        assert budget.used == sum(held)
        assert budget.used <= MOST or max(held) > MOST - 6 * 3 * SMALL
    for size in held:
        budget.give(size)
    assert budget.used == 0
