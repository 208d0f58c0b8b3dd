"""The writer: nothing is lost and nothing counted twice, whatever the disk does; each trouble is told once."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.usage import writer as module
from gateway.usage.record import Row
from gateway.usage.store import DAY_S, FILE, HOUR_S, UsageStore, totals
from gateway.usage.writer import UsageWriter

WAIT_S = 40.0
EVER = (0, 1 << 40)
NOW = 1_800_000_000
ROW: Row = ("a", "m", 1, 0, 2, 1, 3)


class Log:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self._change = threading.Condition()

    def info(self, event: str, **facts: object) -> None:
        with self._change:
            self.told.append((event, str(facts.get("message", ""))))
            self._change.notify()

    error = info

    def wait(self, event: str) -> str:
        """What the event says; waits for it."""
        with self._change:
            assert self._change.wait_for(lambda: event in [name for name, _ in self.told], WAIT_S), self.told
        return dict(self.told)[event]


Start = Callable[..., UsageWriter]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.05)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def start(log: Log) -> Iterator[Start]:
    started: list[UsageWriter] = []

    def begin(folder: Path, days: int = 400, now: float = NOW) -> UsageWriter:
        writer = UsageWriter(folder, days, log, lambda: now)
        writer.start()
        started.append(writer)
        return writer

    yield begin
    for writer in started:
        writer.close()


def used(folder: Path) -> list[tuple[object, ...]]:
    try:
        return totals(folder / FILE, ["key"], *EVER)
    except (OSError, sqlite3.OperationalError):
        return []


def wait_for_use(folder: Path, count: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while used(folder) != [("a", count, 0, 2 * count, count, 3 * count)]:
        assert time.monotonic() < deadline, used(folder)
        time.sleep(0.01)


def test_what_is_put_is_written(tmp_path: Path, start: Start) -> None:
    """Soon, without the writer being closed; and what is left, at the end."""
    writer = start(tmp_path)
    assert writer.put([ROW, ROW]) == []
    wait_for_use(tmp_path, 2)
    writer.put([ROW])
    writer.close()
    wait_for_use(tmp_path, 3)


def test_no_folder_is_told_once_and_waited_for(tmp_path: Path, start: Start, log: Log) -> None:
    """Nothing that was put in the meantime is lost."""
    folder = tmp_path / "volume"
    writer = start(folder)
    writer.put([ROW])
    assert f"there is no folder {folder}: mount a volume there" in log.wait("usage_not_written")
    writer.put([ROW])
    folder.mkdir()
    log.wait("usage_written_again")
    wait_for_use(folder, 2)
    assert [event for event, _ in log.told] == ["usage_not_written", "usage_written_again"]


def test_a_lock_only_delays(tmp_path: Path, start: Start, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long another program holds it."""
    monkeypatch.setattr("gateway.usage.store.BUSY_S", 0.01)
    writer = start(tmp_path)
    writer.put([ROW])
    wait_for_use(tmp_path, 1)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer.put([ROW])
        assert "database is locked" in log.wait("usage_not_written")
        other.execute("COMMIT")
    log.wait("usage_written_again")
    wait_for_use(tmp_path, 2)


def test_a_full_disk_only_delays(
    tmp_path: Path, start: Start, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that finds no room is not half written."""
    full, real = threading.Event(), UsageStore.add
    full.set()

    def add(self: UsageStore, rows: list[Row], moment: int) -> None:
        self._db.execute(f"PRAGMA max_page_count = {3 if full.is_set() else 1 << 30}")
        real(self, rows, moment)

    monkeypatch.setattr(UsageStore, "add", add)
    writer = start(tmp_path)
    writer.put([("a", f"m{number:0100}", 1, 0, 2, 1, 3) for number in range(200)])
    assert "full" in log.wait("usage_not_written")
    assert used(tmp_path) == []
    full.clear()
    wait_for_use(tmp_path, 200)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path, start: Start, log: Log) -> None:
    tmp_path.chmod(0o500)
    start(tmp_path).put([ROW])
    log.wait("usage_not_written")
    tmp_path.chmod(0o700)
    wait_for_use(tmp_path, 1)


@pytest.mark.parametrize("damage", [b"no database at all " * 500, None])
def test_a_damaged_file_is_moved_aside(tmp_path: Path, start: Start, log: Log, damage: bytes | None) -> None:
    """Whole or in its middle: a new one is begun, and what is put goes there."""
    path = tmp_path / FILE
    if damage is None:
        store = UsageStore(path)
        store.add([("a", f"m{number:0100}", 1, 0, 2, 1, 3) for number in range(2000)], NOW)
        store.close()
        content = path.read_bytes()
        damage = content[:8192] + os.urandom(len(content) - 16384) + content[-8192:]
    path.write_bytes(damage)
    writer = start(tmp_path)
    writer.put([ROW])
    assert "it was moved to" in log.wait("usage_damaged")
    wait_for_use(tmp_path, 1)
    assert (tmp_path / f"{FILE}.damaged-{NOW}").read_bytes() == damage
    assert [event for event, _ in log.told] == ["usage_damaged"]


def test_the_file_of_a_newer_gateway_stays(tmp_path: Path, start: Start, log: Log) -> None:
    """It is told; nothing is written into it."""
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("PRAGMA user_version = 9")
    start(tmp_path).put([ROW])
    assert "newer gateway" in log.wait("usage_not_written")


def test_rows_are_kept_for_some_days(tmp_path: Path, start: Start) -> None:
    """Older ones are deleted when the file is opened."""
    store = UsageStore(tmp_path / FILE)
    store.add([("old", "m", 1, 0, 1, 1, 1)], NOW - 11 * DAY_S)
    store.add([ROW], NOW - 9 * DAY_S)
    store.add([ROW], NOW - HOUR_S)
    store.close()
    start(tmp_path, days=10).close()
    wait_for_use(tmp_path, 2)


def test_a_clock_that_jumps_ahead_deletes_nothing(tmp_path: Path, start: Start) -> None:
    """What is old is told by the newest row."""
    store = UsageStore(tmp_path / FILE)
    store.add([ROW], NOW)
    store.close()
    writer = start(tmp_path, days=10, now=NOW + 10_000 * DAY_S)
    writer.put([ROW])
    writer.close()
    wait_for_use(tmp_path, 2)


def test_a_fault_does_not_make_a_clock_right(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is opened again has rows of the clock that jumped: they tell nothing of what is old."""
    monkeypatch.setattr("gateway.usage.store.BUSY_S", 0.01)
    now = NOW
    writer = UsageWriter(tmp_path, 10, log, lambda: now)
    writer.start()
    writer.put([ROW])
    wait_for_use(tmp_path, 1)
    now += 10_000 * DAY_S
    writer.put([ROW])
    wait_for_use(tmp_path, 2)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer.put([ROW])
        log.wait("usage_not_written")
        other.execute("COMMIT")
    log.wait("usage_written_again")
    now += HOUR_S
    writer.put([ROW])
    writer.close()
    wait_for_use(tmp_path, 4)


@pytest.mark.parametrize("names", [[FILE], [FILE, f"{FILE}-wal", f"{FILE}-shm"]])
def test_a_file_that_is_deleted_is_begun_anew(tmp_path: Path, start: Start, names: list[str]) -> None:
    """What is used from then on is not written into a file that nobody can find."""
    writer = start(tmp_path)
    writer.put([ROW])
    wait_for_use(tmp_path, 1)
    for name in names:
        (tmp_path / name).unlink(missing_ok=True)
    writer.put([ROW])
    writer.close()
    assert totals(tmp_path / FILE, ["key"], *EVER) == [("a", 1, 0, 2, 1, 3)]
