"""The one thread that writes the record of usage, so that a slow disk never blocks the event loop. What cannot be
written (a full disk, a lock, no volume) stays in memory, as sums, and is tried again; that is told once. A file that is
damaged is moved aside, and a new one begun."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from gateway.usage.record import Row, Sums
from gateway.usage.store import DAY_S, FILE, HOUR_S, UsageStore, WrongVersion, is_damage

AGAIN_S: Final = 5.0  # after a failed write
CLOSE_S: Final = 5.0  # that the end of the process waits for the disk


class Log(Protocol):
    """`EventLog`, as far as the writer uses it."""

    def info(self, event: str, **facts: object) -> None: ...

    def error(self, event: str, **facts: object) -> None: ...


class InLoop:
    """Logs in the event loop what the thread has to tell: an `EventLog` is for the loop alone."""

    def __init__(self, log: Log, loop: asyncio.AbstractEventLoop) -> None:
        self._log = log
        self._loop = loop

    def info(self, event: str, **facts: object) -> None:
        self._loop.call_soon_threadsafe(partial(self._log.info, event, **facts))

    def error(self, event: str, **facts: object) -> None:
        self._loop.call_soon_threadsafe(partial(self._log.error, event, **facts))


class UsageWriter:
    """Writes what `put` takes. days: for which rows are kept; clock: Unix seconds, which may jump: a row is of the
    moment at which it is written."""

    def __init__(self, state_dir: Path, days: int, log: Log, clock: Callable[[], float] = time.time) -> None:
        self._path = state_dir / FILE
        self._days = days
        self._log = log
        self._clock = clock
        self._change = threading.Condition()  # guards the next two
        self._waiting = Sums()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._store: UsageStore | None = None  # from here on, of the thread alone
        self._failure: str | None = None  # that was told
        self._kept_since = 0.0  # a moment that the record itself bears out, for what is old; see `_tidy`
        self._opened = 0.0  # monotonic: when it was opened first
        self._tidied: int | None = None  # the hour

    def put(self, rows: list[Row]) -> list[Row]:
        """Take rows, for the thread; never blocks, and refuses none."""
        if rows:
            with self._change:
                for row in rows:
                    self._waiting.add(row)
                self._change.notify()
        return []

    def start(self) -> None:
        """Start the thread, which opens the file at once, so that what is wrong is told at the start."""
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
        self._thread.start()

    def close(self, within_s: float = CLOSE_S) -> None:
        """Write what is left, and end the thread."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join(within_s)

    def _run(self) -> None:
        """Write until the writer is closed: the body of the thread."""
        worked = self._attempt([])
        while True:
            with self._change:
                ready = self._change.wait_for(lambda: self._closed, 0 if worked else AGAIN_S)
                if not ready and worked:
                    self._change.wait_for(lambda: len(self._waiting) > 0 or self._closed, HOUR_S)
                closed, rows = self._closed, self._waiting.take()
            worked = self._attempt(rows)
            if closed:
                break
        if self._store is not None:
            self._store.close()

    def _attempt(self, rows: list[Row]) -> bool:
        """Write rows, after opening the file if need be; if that fails, keep them. Return whether it worked."""
        try:
            store = self._opened_store()
            if rows:
                store.add(rows, int(self._clock()))
                rows = []
            self._tidy(store)
        except (sqlite3.Error, WrongVersion, OSError) as error:
            if isinstance(error, sqlite3.Error) and is_damage(error):
                self._keep(rows, None)
                return self._set_aside(error)
            self._keep(rows, f"{self._path}: {error}")
            return False
        if self._failure is not None:
            self._failure = None
            self._log.info("usage_written_again", path=str(self._path))
        return True

    def _keep(self, rows: list[Row], failure: str | None) -> None:
        """Keep rows until the next attempt, and tell a failure once."""
        with self._change:
            for row in rows:
                self._waiting.add(row)
        if self._store is not None:
            self._store.close()
            self._store = None
        if failure is not None and self._failure is None:
            self._failure = failure
            self._log.error(
                "usage_not_written",
                message=f"{failure}; what keys use is kept in memory, and lost if the gateway ends before that",
            )

    def _set_aside(self, error: sqlite3.Error) -> bool:
        """Move a damaged file aside, with its log, and have a new one begun. Return whether that can be tried now."""
        aside = self._path.with_name(f"{FILE}.damaged-{int(self._clock())}")
        try:
            for suffix in ("", "-wal", "-shm"):
                beside = self._path.with_name(f"{FILE}{suffix}")
                if beside.exists():
                    beside.rename(aside.with_name(f"{aside.name}{suffix}"))
        except OSError as problem:
            self._keep([], f"{self._path} is damaged ({error}) and cannot be moved aside: {problem}")
            return False
        self._log.error(
            "usage_damaged",
            message=f"{self._path} is damaged ({error}): it was moved to {aside}, and a new one is begun; "
            "`sqlite3 FILE .recover` may save what it holds",
        )
        return True

    def _opened_store(self) -> UsageStore:
        """Return the store, opened if it is not, or if its file is gone: SQLite would go on to write into nothing."""
        if self._store is not None and not self._path.exists():
            self._store.close()
            self._store = None
        if self._store is None:
            if not self._path.parent.is_dir():
                raise FileNotFoundError(f"there is no folder {self._path.parent}: mount a volume there")
            self._store = UsageStore(self._path)
            if self._opened == 0.0:  # only once: the newest row may be of a clock that has jumped
                now, newest = self._clock(), self._store.newest()
                self._kept_since = now if newest is None else min(now, newest)
                self._opened = time.monotonic()
        return self._store

    def _tidy(self, store: UsageStore) -> None:
        """Put rows of past hours together, and delete old ones, once an hour. What is old is told by the newest row
        that was there when the file was first opened, so that a clock that has jumped ahead deletes nothing."""
        hour = int(self._clock()) // HOUR_S
        if hour == self._tidied:
            return
        self._tidied = hour
        store.put_hours_together(int(self._clock()))
        known = self._kept_since + time.monotonic() - self._opened
        store.forget_before(int(known // DAY_S - self._days) * DAY_S)
