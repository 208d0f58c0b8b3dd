"""Prefixes: what two prompts share, and a memory of them that is bounded in size and time."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.balancing.prefixes import MAX_HOLDERS, MAX_SWEPT, PrefixTable, prefixes_of

BLOCK = 64
texts = some.text("ab", max_size=12 * BLOCK)


def prompt(text: str) -> bytes:
    """A body whose prompt begins after 10 bytes."""
    return orjson.dumps({"prompt": text, "model": "m"})


def shared(one: bytes, other: bytes) -> int:
    """How many bytes the two begin with alike."""
    return next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


@given(texts, texts, texts)
def test_prompts_share_as_many_prefixes_as_whole_blocks(begin: str, one: str, other: str) -> None:
    """Two numbers agree exactly where the prompts agree up to that block's end."""
    bodies = prompt(begin + one), prompt(begin + other)
    numbers = [prefixes_of(body, BLOCK, 16) for body in bodies]
    alike = [a == b for a, b in zip(*numbers, strict=False)]
    whole = (shared(*bodies) - len(b'{"prompt":')) // BLOCK
    assert alike == [at < whole for at in range(len(alike))]


@given(texts, some.binary(max_size=5), some.binary(max_size=5))
def test_prompts_of_another_salt_share_nothing(text: str, one: bytes, other: bytes) -> None:
    """A worker finds them in its cache for requests of the same salt alone."""
    numbers = [prefixes_of(prompt(text), BLOCK, 16, salt) for salt in (one, other)]
    assert (numbers[0] == numbers[1]) == (one == other or not numbers[0])
    assert one == other or not {*numbers[0]} & {*numbers[1]}


def test_what_stands_before_a_block_counts() -> None:
    """Prompts that differ in their first block alone have no prefix in common."""
    numbers = [prefixes_of(prompt(first * BLOCK + "x" * 5 * BLOCK), BLOCK, 16) for first in "ab"]
    assert set(numbers[0]) & set(numbers[1]) == set()
    assert len(set(numbers[0])) == 6


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (BLOCK, 1), (3 * BLOCK, 3), (1000 * BLOCK, 16)])
def test_at_most_so_many_blocks_are_looked_at(size: int, expected: int) -> None:
    """Whole blocks alone, and never more than are asked for, however long the prompt."""
    assert len(prefixes_of(b'{"prompt":' + b"x" * size, BLOCK, 16)) == expected


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "x" * 200}], "model": "m"},
        {"model": "m", "messages": [{"role": "user", "content": "x" * 200}]},
        {"model": "m", "input": "x" * 200},
        {"metadata": {"note": 'a "prompt": in a string'}, "prompt": "x" * 200},
    ],
)
def test_the_prompt_is_found_wherever_it_stands(body: dict[str, object]) -> None:
    """What stands before the prompt does not count; a key's name in a string is no key."""
    text, start = orjson.dumps(body), next(key for key in ("messages", "input", "prompt") if key in body)
    at = text.index(b'"%b":' % start.encode()) + len(start) + 3
    alone = b'{"prompt":' + text[at:]
    assert prefixes_of(text, BLOCK, 1) == prefixes_of(alone, BLOCK, 1) != []


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"model":"m"}', b'{"file":"' + b"x" * 70000 + b'","prompt":"a"}']
)
def test_a_body_without_a_prompt_has_no_prefix(body: bytes) -> None:
    """Nor has one whose prompt begins far behind."""
    assert prefixes_of(body, 1, 16) == []


def test_the_latest_holders_are_remembered() -> None:
    """The latest first, each once, and only so many."""
    table = PrefixTable(10, 60)
    for address in ["a", "b", "a", "c", "d", "e"]:
        table.remember([1, 2], address, 0.0)
    assert table.holders(2, 0.0) == ("e", "d", "c", "a")[:MAX_HOLDERS]
    assert table.holders(3, 0.0) == ()


def test_a_prefix_is_forgotten_when_unused_for_its_time() -> None:
    """The time runs from its last use; what is past it is not known, and goes as other requests come."""
    table = PrefixTable(1000, 10)
    table.remember(list(range(MAX_SWEPT)), "a", 0.0)
    table.remember([0], "a", 9.0)
    assert (table.holders(0, 15.0), table.holders(1, 9.9), table.holders(1, 10.0)) == (("a",), ("a",), ())
    table.remember([5000], "b", 10.0)
    assert len(table) == 2


def test_of_one_prompt_the_longest_prefix_goes_first() -> None:
    """The beginning, which others may share, outlives the rest."""
    table = PrefixTable(3, 60)
    table.remember([1, 2, 3], "a", 0.0)
    table.remember([9], "b", 1.0)
    assert [bool(table.holders(prefix, 1.0)) for prefix in (1, 2, 3, 9)] == [True, True, False, True]


def test_what_was_not_used_for_longest_goes_first() -> None:
    """A prefix that is used again outlives one that came after it."""
    table = PrefixTable(2, 60)
    for second, prefix in enumerate([1, 2, 1, 3]):
        table.remember([prefix], "a", float(second))
    assert [bool(table.holders(prefix, 4.0)) for prefix in (1, 2, 3)] == [True, False, True]


@given(
    some.lists(some.tuples(some.lists(some.integers(0, 99), max_size=8), some.integers(0, 5)), max_size=60)
)
def test_the_table_never_exceeds_its_bound(requests: list[tuple[list[int], int]]) -> None:
    """Whatever comes, it holds at most 12 prefixes, and of each at most MAX_HOLDERS workers."""
    table = PrefixTable(12, 30)
    for second, (prefixes, address) in enumerate(requests):
        table.remember(prefixes, str(address), float(second))
        assert len(table) <= 12
        assert all(len(table.holders(prefix, float(second))) <= MAX_HOLDERS for prefix in prefixes)
