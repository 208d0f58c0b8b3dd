"""How far the run has come: updated by many threads, read by the reporter and the server."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Phase = Literal["listing", "downloading", "verifying", "publishing", "ready", "failed"]
PHASES: tuple[Phase, ...] = ("listing", "downloading", "verifying", "publishing", "ready", "failed")

_RATE_WINDOW_S = 10.0  # over which the rate is taken
_SAMPLE_EVERY_S = 0.25  # at most so often, so that forty samples cover the window


@dataclass(frozen=True, slots=True)
class ProgressState:
    """The progress at one moment, in the shape that ``/progress`` answers. Bytes and files count within the phase:
    received while downloading, read back while verifying. *eta_s* is None while the rate is 0."""

    slug: str
    repo: str
    phase: Phase
    bytes_done: int
    bytes_total: int
    rate_bytes_per_s: float
    eta_s: float | None
    current_file: str | None
    files_done: int
    files_total: int
    retries: int
    error: str | None


class Work(NamedTuple):
    """An amount of work, in a phase as a whole or done before it began."""

    bytes: int = 0
    files: int = 0


class Progress:
    """Counters of one run; safe to call from any thread. *clock* gives monotonic seconds."""

    def __init__(self, slug: str, repo: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._slug = slug
        self._repo = repo
        self._clock = clock
        self._lock = threading.Lock()
        self._retries = 0
        self._error: str | None = None
        self._reset("listing", Work(), Work())

    def _reset(self, phase: Phase, total: Work, already: Work) -> None:
        """Set the counters to the beginning of a phase; retries and error stay. `enter` holds the lock."""
        self._phase = phase
        self._total = total
        self._already = already
        self._done: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._current: str | None = None
        self._moved = 0
        self._samples: deque[tuple[float, int]] = deque([(self._clock(), 0)])

    def enter(self, phase: Phase, total: Work, already: Work) -> None:
        """Begin a phase with *total* work, of which *already* is done. `Reporter.enter` calls it, and writes a line."""
        with self._lock:
            self._reset(phase, total, already)

    def start(self, path: str, size: int) -> None:
        """Begin a file of *size* bytes, or start it over, before `add` counts its bytes; sources and `Job` call it."""
        with self._lock:
            self._sizes[path] = size
            self._done[path] = 0

    def add(self, path: str, count: int, *, moved: bool = True) -> None:
        """Count bytes of a started file; negative when they are thrown away. *moved* is False for those and for bytes
        that an earlier run left: neither counts for the rate."""
        with self._lock:
            self._done[path] += count
            self._current = path
            if moved:
                self._moved += count
            self._sample()

    def retried(self) -> None:
        """Count one more try at something that failed; `Job`, which calls it, also writes a line."""
        with self._lock:
            self._retries += 1

    def fail(self, error: str) -> None:
        """End the run with *error*; the counters stay. `serving` calls it, or `__main__` for an error outside."""
        with self._lock:
            self._phase = "failed"
            self._error = error

    def state(self) -> ProgressState:
        """Return the progress now, for the reporter's lines and for /progress and /metrics."""
        with self._lock:
            done = self._already.bytes + sum(self._done.values())
            rate = self._rate()
            left = self._total.bytes - done
            return ProgressState(
                slug=self._slug,
                repo=self._repo,
                phase=self._phase,
                bytes_done=done,
                bytes_total=self._total.bytes,
                rate_bytes_per_s=round(rate, 1),
                eta_s=round(left / rate, 1) if rate > 0 else None,
                current_file=self._current,
                files_done=self._already.files
                + sum(count >= self._sizes[path] for path, count in self._done.items()),
                files_total=self._total.files,
                retries=self._retries,
                error=self._error,
            )

    def _sample(self) -> None:
        """Note how much has moved by now, and drop samples that are too old for `_rate`. The caller holds the lock."""
        now = self._clock()
        if now - self._samples[-1][0] >= _SAMPLE_EVERY_S:
            self._samples.append((now, self._moved))
        while len(self._samples) > 1 and now - self._samples[1][0] > _RATE_WINDOW_S:
            self._samples.popleft()

    def _rate(self) -> float:
        """Return bytes a second over the last ten seconds; 0 if no sample is of them. The caller holds the lock."""
        if self._phase not in ("downloading", "verifying"):  # the others count no bytes
            return 0.0
        now = self._clock()
        begin, moved = next(
            ((t, n) for t, n in self._samples if now - t <= _RATE_WINDOW_S), (now, self._moved)
        )
        return max(0.0, (self._moved - moved) / (now - begin)) if now > begin else 0.0
