"""The record on disk: SQLite. One row for each batch, key and model; all totals are queries. Rows of hours past are put
together, one for each hour, key and model, so that its size depends on keys and models, not on requests."""

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.usage.record import Row

FILE: Final = "usage.sqlite3"
VERSION: Final = 1  # of the schema
BUSY_S: Final = 5.0  # that a lock is waited for
HOUR_S, DAY_S = 3600, 86400
GROUPS: Final = {"key": "key", "model": "model", "day": "date(moment, 'unixepoch')"}
COUNTS: Final = ("requests", "refused", "tokens_in", "cached", "tokens_out")
SUMS: Final = ", ".join(f"sum({name})" for name in COUNTS)
PARTS: Final = "FROM usage WHERE moment < :now AND moment % :hour != 0"  # of hours past, not put together yet
PUT_TOGETHER: Final = (
    f"INSERT INTO usage SELECT moment / :hour * :hour, key, model, {SUMS} {PARTS} GROUP BY 1, 2, 3"
)
DELETE_PARTS: Final = f"DELETE {PARTS}"
DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS usage (
    moment INTEGER NOT NULL,  -- of the writing, Unix seconds; of an hour past: its beginning
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS usage_by_moment ON usage (moment);
PRAGMA user_version = {VERSION};
COMMIT;
"""


class WrongVersion(Exception):
    """The file is of a newer gateway, whose columns this one does not know."""


class Damaged(sqlite3.DatabaseError):
    """SQLite's own check has found the file damaged."""


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error means that the file is no database, or not a whole one."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, Damaged) or (code is not None and code & 0xFF in DAMAGE)


class UsageStore:
    """The open file, for the one thread that writes. Methods raise sqlite3.Error, for `UsageWriter`."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            version = check_version(self._db, path)
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if found != ("ok",):
                raise Damaged(str(found[0]))
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # a batch is on the disk when `add` returns
            if version < VERSION:
                self._db.executescript(SCHEMA)
        except BaseException:
            self._db.close()
            raise

    def newest(self) -> int | None:
        """Return the moment of the newest row, None if there is none."""
        found: int | None = self._db.execute("SELECT max(moment) FROM usage").fetchone()[0]
        return found

    def add(self, rows: Iterable[Row], moment: int) -> None:
        """Add a batch, whole or not at all."""
        self._together(
            [("INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [(moment, *row) for row in rows])]
        )

    def put_hours_together(self, now: int) -> None:
        """Replace the rows of each hour before the present one by one for each key and model."""
        values = {"hour": HOUR_S, "now": now // HOUR_S * HOUR_S}
        self._together([(PUT_TOGETHER, [values]), (DELETE_PARTS, [values])])

    def forget_before(self, moment: int) -> None:
        """Delete the rows that are older."""
        self._db.execute("DELETE FROM usage WHERE moment < ?", (moment,))

    def close(self) -> None:
        self._db.close()

    def _together(
        self, steps: Iterable[tuple[str, Sequence[Mapping[str, int] | tuple[object, ...]]]]
    ) -> None:
        """Run statements as one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for statement, values in steps:
                self._db.executemany(statement, values)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


def check_version(db: sqlite3.Connection, path: Path) -> int:
    """Return the version of the schema; 0 for a new file. Raises WrongVersion for a file of a newer gateway."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise WrongVersion(
            f"{path} is of a newer gateway (version {version}; this one knows {VERSION}): run that one, or move the "
            "file away"
        )
    return version


def totals(path: Path, by: Sequence[str], since: int, until: int) -> list[tuple[object, ...]]:
    """Return the sums from `since` to before `until`, in Unix seconds: for each group its values, then COUNTS. by: of
    GROUPS. Reads while the gateway writes. Raises sqlite3.Error and WrongVersion; FileNotFoundError without a file."""
    if not path.exists():
        raise FileNotFoundError(path)
    columns = ", ".join(GROUPS[name] for name in by)
    with closing(sqlite3.connect(path, timeout=BUSY_S)) as db:
        check_version(db, path)
        db.execute("PRAGMA query_only = ON")
        return db.execute(
            f"SELECT {columns}, {SUMS} FROM usage WHERE moment >= ? AND moment < ? "  # noqa: S608  # GROUPS' own
            f"GROUP BY {columns} ORDER BY {columns}",
            (since, until),
        ).fetchall()


def month_totals(state_dir: Path, now: float | None = None) -> Mapping[str, int]:
    """Return the tokens of this calendar month (UTC), prompts and completions, by the key's name: for monthly limits at
    the start. Empty if there is no record, or none that can be read, which the writer then tells."""
    day = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    begin = int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp())
    try:
        found = totals(state_dir / FILE, ["key"], begin, begin + 31 * DAY_S)
    except (sqlite3.Error, WrongVersion, OSError):
        return {}
    return {str(row[0]): int(str(row[3])) + int(str(row[5])) for row in found}
