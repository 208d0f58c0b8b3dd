"""Rendezvous hashing: keys stay where they are when others come and go, and divide by weight."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.balancing.rendezvous import fraction, number_of, preferred

names = some.lists(some.binary(min_size=1, max_size=12), min_size=2, max_size=12, unique=True)


def member(key: bytes, members: list[bytes], weights: list[float] | None = None) -> bytes:
    """The member that `key` prefers."""
    numbers = [number_of(one) for one in members]
    return members[preferred(number_of(key), numbers, weights or [1.0] * len(members))]


@given(some.binary(), names, some.data())
def test_one_that_leaves_moves_its_own_keys_only(
    key: bytes, members: list[bytes], data: some.DataObject
) -> None:
    """A key whose member stays keeps it; read backwards: one that comes takes keys from nobody but for itself."""
    gone = data.draw(some.sampled_from(members))
    before = member(key, members)
    after = member(key, [one for one in members if one != gone])
    assert after == before or before == gone


@given(some.binary(), names, some.randoms())
def test_the_order_of_the_members_does_not_matter(key: bytes, members: list[bytes], random: object) -> None:
    """Two processes that see the same workers in another order agree."""
    shuffled = list(members)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert member(key, shuffled) == member(key, members)


@given(some.binary(), names, some.data())
def test_more_weight_only_draws_keys(key: bytes, members: list[bytes], data: some.DataObject) -> None:
    """Where one member's weight rises, a key stays or goes to that member."""
    weights = [data.draw(some.floats(0.1, 1)) for _ in members]
    riser = data.draw(some.integers(0, len(members) - 1))
    raised = [weight * 3 if at == riser else weight for at, weight in enumerate(weights)]
    assert member(key, members, raised) in {member(key, members, weights), members[riser]}


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [1, 2, 3, 4], [95, 4, 0.5, 0.5]])
def test_keys_divide_by_weight(weights: list[float]) -> None:
    """Of many keys each member gets its part, within five standard deviations."""
    keys, numbers = 8000, [number_of(b"10.0.0.%d:8000" % at) for at in range(len(weights))]
    got = Counter(preferred(number_of(b"session-%d" % key), numbers, weights) for key in range(keys))
    for at, weight in enumerate(weights):
        part = weight / sum(weights)
        assert abs(got[at] - keys * part) < 5 * (keys * part * (1 - part)) ** 0.5


@given(some.integers(0, 1 << 48), some.floats(0, 1), some.floats(0, 1))
def test_turns_cover_the_range_evenly(first: int, low: float, high: float) -> None:
    """Of any 200 turns in a row each stretch gets its part, give or take a few turns."""
    low, high = min(low, high), max(low, high)
    inside = sum(low <= fraction(first + turn) < high for turn in range(200))
    assert abs(inside - 200 * (high - low)) < 6
