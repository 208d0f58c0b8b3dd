"""How fast a transfer may go, and how slow it may get before it counts as broken off. All its threads share one."""

import threading
import time
from collections.abc import Callable


class TooSlow(Exception):
    """So little arrived for so long that going on is no use."""


class Pace:
    """At most *most* bytes a second (0: no limit); at least *least*, on average over each *window_s* seconds.

    *clock* gives monotonic seconds, *sleep* waits for some.
    """

    def __init__(
        self,
        most: int,
        least: int,
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._most, self._least, self._window_s = most, least, window_s
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._due = self._since = clock()
        self._arrived = 0
        self._failed: TooSlow | None = None

    def begin(self) -> None:
        """A transfer starts: what was before it, or between two of them, does not count."""
        with self._lock:
            self._due = self._since = self._clock()
            self._arrived, self._failed = 0, None

    def take(self, count: int) -> None:
        """Count bytes that arrived, and wait as long as the limit demands. Raises TooSlow, and again until `begin`."""
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
        seconds = now - self._since
        if seconds < self._window_s:
            return
        arrived, self._arrived, self._since = self._arrived, 0, now
        if arrived < self._least * seconds:
            self._failed = TooSlow(
                f"{arrived:,} bytes in {seconds:.0f} s, and MODEL_CACHE_LEAST_BYTES_PER_S is {self._least:,}"
            )
            raise self._failed
