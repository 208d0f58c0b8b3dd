"""The record on disk: batches whole or not at all, totals by any group, and a bounded number of rows."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.usage.record import Row
from gateway.usage.store import DAY_S, FILE, HOUR_S, UsageStore, WrongVersion, month_totals, totals

EVER = (0, 1 << 40)
NOON = int(datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp())


def row(key: str = "a", model: str = "m", tokens: int = 1) -> Row:
    return key, model, 1, 0, tokens, 0, tokens


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE


def rows_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM usage").fetchone()[0])


def test_totals_are_sums_of_batches(path: Path) -> None:
    """By any group, while the writer has the file open; a day is UTC's."""
    store = UsageStore(path)
    store.add([row("a", "m", 1), row("b", "m", 2)], NOON)
    store.add([row("a", "n", 4), row("a", "m", 8)], NOON + 12 * HOUR_S)
    assert totals(path, ["key"], *EVER) == [("a", 3, 0, 13, 0, 13), ("b", 1, 0, 2, 0, 2)]
    assert totals(path, ["day", "model"], *EVER) == [
        ("2026-11-28", "m", 2, 0, 3, 0, 3), ("2026-11-29", "m", 1, 0, 8, 0, 8), ("2026-11-29", "n", 1, 0, 4, 0, 4),
    ]  # fmt: skip
    assert totals(path, ["key"], NOON + 1, NOON + DAY_S) == [("a", 2, 0, 12, 0, 12)]
    store.close()
    assert totals(path, ["key"], *EVER)[0] == ("a", 3, 0, 13, 0, 13)


def test_a_batch_is_added_whole_or_not_at_all(path: Path) -> None:
    """What fails in its middle leaves nothing."""
    store = UsageStore(path)
    with pytest.raises(sqlite3.Error):
        store.add([row(), ("a", "m", 1)], NOON)  # type: ignore[list-item]
    assert totals(path, ["key"], *EVER) == []
    store.add([row()], NOON)
    assert rows_of(path) == 1


def test_hours_past_are_put_together(path: Path) -> None:
    """All sums stay; the present hour's rows stay too."""
    store = UsageStore(path)
    for second in range(1, 2 * HOUR_S, 60):
        store.add([row("a"), row("b")], NOON + second)
    before = totals(path, ["key", "model", "day"], *EVER)
    for _ in range(2):
        store.put_hours_together(NOON + HOUR_S + 1)
        assert rows_of(path) == 2 + 2 * 60
        assert totals(path, ["key", "model", "day"], *EVER) == before
    store.put_hours_together(NOON + 2 * HOUR_S)
    assert rows_of(path) == 4
    assert totals(path, ["key", "model", "day"], *EVER) == before


def test_old_rows_are_deleted(path: Path) -> None:
    store = UsageStore(path)
    store.add([row("old")], NOON - DAY_S)
    store.add([row("new")], NOON)
    store.forget_before(NOON)
    assert [found[0] for found in totals(path, ["key"], *EVER)] == ["new"]
    assert store.newest() == NOON


def test_the_file_of_a_newer_gateway_is_left_alone(path: Path) -> None:
    """Its columns may mean something else."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
    for use in (UsageStore, lambda path: totals(path, ["key"], *EVER)):
        with pytest.raises(WrongVersion, match="newer gateway"):
            use(path)


@pytest.mark.parametrize(
    ("moment", "now", "found"),
    [
        ((2026, 11, 1), (2026, 11, 28), {"a": 6}),
        ((2026, 10, 31), (2026, 11, 1), {}),
        ((2026, 2, 28), (2026, 2, 28), {"a": 6}),
        ((2026, 12, 31), (2026, 12, 31), {"a": 6}),
    ],
)
def test_the_tokens_of_a_month(
    tmp_path: Path, moment: tuple[int, int, int], now: tuple[int, int, int], found: dict[str, int]
) -> None:
    """Prompts and completions of the calendar month, by key."""
    store = UsageStore(tmp_path / FILE)
    store.add([row("a", "m", 1), row("a", "n", 2)], int(datetime(*moment, tzinfo=UTC).timestamp()))
    assert month_totals(tmp_path, datetime(*now, 23, tzinfo=UTC).timestamp()) == found


def test_no_record_has_no_month(tmp_path: Path) -> None:
    """Nor has one that cannot be read."""
    assert month_totals(tmp_path / "none") == {}
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    assert month_totals(tmp_path) == {}
