"""How fast a transfer may go, and how slow it may get before it counts as broken off. All its threads share one."""

import threading
import time
from collections.abc import Callable

_LISTING_WINDOW_S = 60.0


class HopelessError(Exception):
    """So little arrived for so long, or so much, that going on is no use; the text says which."""


class Pace:
    """At most *most* bytes a second (0: no limit); at least *least*, on average over each *window_s* seconds; *in_all*,
    where it is not 0, at most.

    What `leave_out` is told of belongs to no window. *clock* gives monotonic seconds, *sleep* waits for some.
    """

    def __init__(
        self,
        most: int,
        least: int,
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        *,
        in_all: int = 0,
    ) -> None:
        self._most, self._least, self._window_s = most, least, window_s
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._due = self._since = self._left_out_until = clock()
        self._in_all = in_all
        self._arrived = self._sum = 0
        self._failed: HopelessError | None = None

    def of_listing(self, in_all: int) -> "Pace":
        """One for a listing of at most so many bytes, which takes seconds where files take hours."""
        return Pace(0, self._least, min(self._window_s, _LISTING_WINDOW_S), self._clock, in_all=in_all)

    def begin(self) -> None:
        """A transfer starts: what was before it, or between two of them, does not count."""
        with self._lock:
            self._due = self._since = self._clock()
            self._arrived, self._failed = 0, None

    def now(self) -> float:
        """The time, for `leave_out`."""
        return self._clock()

    def leave_out(self, began: float) -> None:
        """No transfer is judged by the time from *began* until now: a request failed, and was waited for.

        Threads that wait at once are counted once.
        """
        with self._lock:
            now = self._clock()
            self._since = min(now, self._since + now - max(began, self._left_out_until))
            self._left_out_until = now

    def take(self, count: int) -> None:
        """Count bytes that arrived, and wait as long as the limit demands.

        Raises HopelessError, and again until `begin`.
        """
        with self._lock:
            now = self._clock()
            self._check(now, count)
            wait_s = self._owed(now, count)
        if wait_s > 0:
            self._sleep(wait_s)

    def _owed(self, now: float, count: int) -> float:
        """Seconds until what has arrived is within the limit. Time in which less came is not saved up."""
        if not self._most:
            return 0.0
        self._due = max(self._due, now) + count / self._most
        return self._due - now

    def _check(self, now: float, count: int) -> None:
        if self._failed:
            raise self._failed
        self._arrived += count
        self._sum += count
        if self._in_all and self._sum > self._in_all:
            self._failed = HopelessError(f"more than {self._in_all:,} bytes")
            raise self._failed
        seconds = now - self._since
        if seconds < self._window_s:
            return
        arrived, self._arrived, self._since = self._arrived, 0, now
        if arrived < self._least * seconds:
            self._failed = HopelessError(
                f"{arrived:,} bytes in {seconds:.0f} s, and MODEL_CACHE_LEAST_BYTES_PER_S is {self._least:,}"
            )
            raise self._failed
