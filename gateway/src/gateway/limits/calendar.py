"""Which calendar month it is (UTC), for monthly limits. Pure but for the clock that it is given."""

import time
from collections.abc import Callable
from datetime import UTC, datetime


class Calendar:
    """Knows the month, and works it out anew only when one ends. wall: Unix seconds of a clock that may jump: forward
    it is followed; set back, the later month stays, so that nobody gets a month's tokens twice."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._month = 0
        self._ends = 0.0  # Unix seconds

    def month(self) -> int:
        """Return the month's number, counted on from year 0."""
        now = self._wall()
        if now >= self._ends:
            day = datetime.fromtimestamp(now, UTC)
            self._month = day.year * 12 + day.month - 1
            self._ends = begin_of(self._month + 1).timestamp()
        return self._month


def begin_of(month: int) -> datetime:
    """Return the moment at which a month begins."""
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
