"""How fast a transfer may go, and how slow before it counts as broken off. All its threads share one limit."""

import threading
import time
from collections.abc import Callable

_LISTING_WINDOW_S = 60.0  # at most, over which a listing's rate is measured


class TransferLimitError(Exception):
    """The download is too slow, or the listing too slow or too large, to go on; the text says which."""


class RateLimit:
    """At most *max_per_s* bytes a second, at least *min_per_s* on average over each *window_s* seconds, and at most
    *max_bytes* in its life; 0 means no limit. All threads of all downloads share one; a listing has its own.
    Time passed to `leave_out` belongs to no window. *clock* gives monotonic seconds, *sleep* waits for some."""

    def __init__(
        self,
        max_per_s: int,
        min_per_s: int,
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        *,
        max_bytes: int = 0,
    ) -> None:
        self._max_per_s, self._min_per_s, self._window_s = max_per_s, min_per_s, window_s
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()  # for all that follows
        self._due = self._since = self._left_out_until = clock()  # bytes due; window begun; waits left out
        self._max_bytes = max_bytes
        self._in_window = self._total = 0  # bytes
        self._failed: TransferLimitError | None = None  # raised on every call until `begin`

    def of_listing(self, max_bytes: int) -> "RateLimit":
        """Return the limit for one listing of at most *max_bytes*: not slowed, in a short window: it takes seconds."""
        return RateLimit(
            0, self._min_per_s, min(self._window_s, _LISTING_WINDOW_S), self._clock, max_bytes=max_bytes
        )

    def begin(self) -> None:
        """Start a download; `Sources` calls it before each: earlier time does not count, a failure is forgotten."""
        with self._lock:
            self._due = self._since = self._clock()
            self._in_window, self._failed = 0, None

    def now(self) -> float:
        """Return the clock's time: callers note it before a request or a wait, for `leave_out`."""
        return self._clock()

    def leave_out(self, began: float) -> None:
        """Exclude the time since *began*, of a failed request and the wait after it; once, if several threads wait."""
        with self._lock:
            now = self._clock()
            self._since = min(now, self._since + now - max(began, self._left_out_until))  # never after now
            self._left_out_until = now

    def count_arrived(self, count: int) -> None:
        """Count bytes that arrived, and sleep as long as the limit demands, outside the lock. Raises TransferLimitError
        if the transfer is too slow or too large, and then on every call until `begin`, so that all its threads end."""
        with self._lock:
            now = self._clock()
            self._check(now, count)
            wait_s = self._owed(now, count)
        if wait_s > 0:
            self._sleep(wait_s)

    def _owed(self, now: float, count: int) -> float:
        """Return the seconds to wait to stay below *max_per_s*: slowness earns no credit. The caller holds the lock."""
        if not self._max_per_s:
            return 0.0
        self._due = max(self._due, now) + count / self._max_per_s
        return self._due - now

    def _check(self, now: float, count: int) -> None:
        """Raise TransferLimitError for too much, or at a window's end too little. The caller holds the lock."""
        if self._failed:
            raise self._failed
        self._in_window += count
        self._total += count
        if self._max_bytes and self._total > self._max_bytes:
            self._failed = TransferLimitError(f"more than {self._max_bytes:,} bytes")
            raise self._failed
        seconds = now - self._since
        if seconds < self._window_s:
            return
        arrived, self._in_window, self._since = self._in_window, 0, now
        if arrived < self._min_per_s * seconds:
            self._failed = TransferLimitError(
                f"{arrived:,} bytes in {seconds:.0f} s, and MODEL_CACHE_LEAST_BYTES_PER_S is {self._min_per_s:,}"
            )
            raise self._failed
