"""The table of what keys have used: shared by processes, exact, and not harmed by one that is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from gateway.api.errors import Overloaded
from gateway.limits.table import IDLE_MS, MARK, Table, shared_memory
from gateway.limits.window import Shape
from tests.integration.gateway.harness import wait_until

LIMIT, PROCESSES, TRIES = 1000, 4, 2000
FORK = multiprocessing.get_context("fork")


def take_one(table: Table, name: str, slot: int = 1000, limit: int = LIMIT) -> bool:
    row = table.enter(name, slot * 250)
    row.note_use(slot * 250)
    try:
        fits = row.requests.advance(slot, limit) < limit
        if fits:
            row.requests.take(1)
        return fits
    finally:
        table.leave(row)


def hammer(fd: int, process: int, passed: object) -> None:
    """Take as often as it goes, and tell how often it went."""
    table = Table(fd, PROCESSES, process)
    got = sum(take_one(table, "a") for _ in range(TRIES))
    with passed.get_lock():  # type: ignore[attr-defined]
        passed.value += got  # type: ignore[attr-defined]


def test_processes_together_get_the_limit_and_no_more() -> None:
    """Four at the same time, from one row that the first of them makes."""
    fd, passed = shared_memory(), FORK.Value("i", 0)
    each = [
        FORK.Process(target=hammer, args=(fd, number, passed), daemon=True) for number in range(PROCESSES)
    ]
    for one in each:
        one.start()
    for one in each:
        one.join(40)
    assert ([one.exitcode for one in each], passed.value) == ([0] * PROCESSES, LIMIT)
    os.close(fd)


def use_for_ever(fd: int, process: int) -> None:
    table = Table(fd, PROCESSES, process)
    row = table._find("a", 0)
    slot: int = row._words[row.requests._base]
    while True:
        slot += 1
        row = table.enter("a", slot)
        row.requests.advance(slot, 10**9)
        row.requests.take(1)
        row.hold(5)
        row.requests.give_back(1, slot)
        row.let_go(5)
        table.leave(row)


def test_a_process_that_is_killed_keeps_no_lock_and_leaves_no_wrong_sum() -> None:
    """Twenty times, at whatever it is doing: the row can be entered, and its sum is that of its slots."""
    fd = shared_memory()
    table = Table(fd, PROCESSES, 0)
    for _ in range(20):
        other = FORK.Process(target=use_for_ever, args=(fd, 1), daemon=True)
        other.start()
        row = table._find("a", 0)
        head = row.requests._base
        seen = row._words[head]
        wait_until(lambda row=row, head=head, seen=seen: row._words[head] > seen, "the other process at work")
        assert other.pid is not None
        os.kill(other.pid, signal.SIGKILL)
        other.join(40)
        table.clear(1)
        row = table.enter("a", 0)
        base = row.requests._base
        kept = table.shape.kept
        assert row._words[base + 1] == sum(row._words[base + 3 : base + 3 + kept])
        assert (row.in_flight(), row.month_reserved()) == (0, 0)
        table.leave(row)
    os.close(fd)


def test_a_row_that_was_left_marked_is_added_up_again() -> None:
    """Its process was killed between two words."""
    table = Table(shared_memory(), rows=4)
    row = table.enter("a", 0)
    row.requests.advance(100, 10)
    row.requests.take(3)
    row._words[row.requests._base + 1] = 77
    assert row._words[row._base + MARK] == 1
    again = table.enter("a", 0)
    assert again.requests.advance(100, 10) == 3
    table.leave(again)


def test_what_a_process_held_is_cleared_and_nothing_else() -> None:
    """Its own columns, in every row."""
    fd = shared_memory()
    tables = [Table(fd, 3, number, rows=16) for number in range(3)]
    for table in tables:
        for name in ("a", "b"):
            row = table.enter(name, 0)
            row.hold(10)
            table.leave(row)
    tables[0].clear(1)
    for name in ("a", "b"):
        row = tables[2].enter(name, 0)
        assert (row.in_flight(), row.month_reserved()) == (2, 20)
        tables[2].leave(row)
    os.close(fd)


def test_keys_have_rows_of_their_own_until_there_are_none() -> None:
    """A full table says so; a row that nobody has used for an hour goes to another key, empty; its former key gets a
    new one when it comes back, in whichever process."""
    fd = shared_memory()
    table, other = Table(fd, 2, 0, rows=4), Table(fd, 2, 1, rows=4)
    names = ["a", "b", "c", "d"]
    for name in names:
        assert take_one(table, name, limit=1)
        assert not take_one(other, name, limit=1)
    with pytest.raises(Overloaded, match="More than 4 API keys"):
        table.enter("e", 0)
    later = 1001 + IDLE_MS // 250
    for name in names[:3]:
        assert take_one(table, name, later, limit=2)
    assert take_one(table, "e", later, limit=1)
    assert not take_one(other, "e", later, limit=1)
    with pytest.raises(Overloaded):
        other.enter("d", later * 250)
    os.close(fd)


def test_a_request_in_flight_keeps_its_row() -> None:
    """However long it takes."""
    table = Table(rows=1)
    row = table.enter("a", 0)
    row.hold(0)
    table.leave(row)
    with pytest.raises(Overloaded):
        table.enter("b", IDLE_MS * 2)
    row = table.enter("a", 0)
    row.let_go(0)
    table.leave(row)
    table.leave(table.enter("b", IDLE_MS * 2))


def test_a_key_that_comes_back_keeps_its_row() -> None:
    """Also between another's look at the row, which was idle, and its taking it."""
    table, later = Table(rows=1), IDLE_MS * 2
    table.leave(table.enter("a", 0))
    for_another = table._row(0, (1, 2))
    assert for_another.is_idle(later)
    row = table.enter("a", later)
    row.note_use(later)
    row.hold(0)
    table.leave(row)
    assert not table._give(for_another, later)
    row = table.enter("a", later)
    assert row.in_flight() == 1
    table.leave(row)


def test_a_month_begins_at_nothing_and_does_not_come_back() -> None:
    """A clock that is set back keeps the later month's count."""
    table = Table(rows=1)
    row = table.enter("a", 0)
    assert row.month_used(100) == 0
    row.add_to_month(7)
    assert (row.month_used(100), row.month_used(99), row.month_used(101), row.month_used(100)) == (7, 7, 0, 0)
    row.add_to_month(3)
    row.seed_month(2)
    assert row.month_used(101) == 3
    row.seed_month(5)
    assert row.month_used(101) == 5
    table.leave(row)


def test_the_memory_is_only_what_is_used() -> None:
    """Rows of keys that do not exist take none."""
    before = resident_bytes()
    table = Table(processes=64)
    take_one(table, "a")
    assert resident_bytes() - before < 2_000_000


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_locked_row_makes_others_wait_and_only_for_it() -> None:
    """Another key's row is free meanwhile."""
    fd = shared_memory()
    table = Table(fd, 2, 0, rows=16)
    take_one(table, "a")
    take_one(table, "b")
    row = table.enter("a", 0)
    done = FORK.Value("i", 0)

    def other() -> None:
        mine = Table(fd, 2, 1, rows=16)
        take_one(mine, "b")
        done.value = 1
        take_one(mine, "a")
        done.value = 2

    process = FORK.Process(target=other, daemon=True)
    process.start()
    wait_until(lambda: done.value == 1, "the other row")
    time.sleep(0.1)
    assert done.value == 1
    table.leave(row)
    process.join(40)
    assert done.value == 2
    os.close(fd)


def test_windows_of_another_length() -> None:
    """As the shape says."""
    table = Table(shape=Shape(slots=4, slot_ms=10), rows=2)
    assert take_one(table, "a", 10, limit=1)
    assert not take_one(table, "a", 14, limit=1)
    assert take_one(table, "a", 15, limit=1)
