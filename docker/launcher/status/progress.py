"""Tracks how far the current run of vLLM has come: keeps its timeline, logs each phase, writes the state file."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from launcher.engine.phases import Phase, Timeline, cache_hit_in, percent_in, phase_in
from launcher.status import history, state
from launcher.status.logs import Log, timestamp
from launcher.status.state import State, Trouble


class Progress:
    """The progress of all runs of one launcher; the supervisor owns it. Every change is written to the state file."""

    def __init__(
        self, log: Log, state_file: Path, history_file: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the history of starts, which may block; `clock` counts seconds and never goes back."""
        self._log = log
        self._state_file = state_file
        self._history_file = history_file
        self._usual = history.usual(self._earlier_starts())
        self._troubles: Counter[Trouble] = Counter()
        self._weights_bytes: int | None = None
        self._compile_cache_hit: bool | None = None
        self._clock = clock
        self._run = 0
        self._percent: int | None = None
        self._timeline = Timeline(Phase.WEIGHTS_CHECK, clock())

    @property
    def run(self) -> int:
        """How many runs have begun, the current one included; it is the number of a run in the log."""
        return self._run

    @property
    def is_starting(self) -> bool:
        """Whether the current phase comes before ready in a start-up; False also in a back-off."""
        return self._timeline.phase.is_up_to_ready and self._timeline.phase is not Phase.READY

    @property
    def was_ready(self) -> bool:
        """Whether this run has been ready, so that clients' requests may be in it when it is told to stop."""
        return self._timeline.phase is Phase.READY or Phase.READY in self._timeline.seconds

    @property
    def has_answered(self) -> bool:
        """Whether vLLM has answered /health in this run; then its end is not taken for a configuration error."""
        return self.was_ready or Phase.WARMING in (self._timeline.phase, *self._timeline.seconds)

    @property
    def ready_s(self) -> float:
        """Seconds this run has been ready, which decide how long the pause after its crash is; 0 if it never was."""
        if self._timeline.phase is Phase.READY:
            return self._clock() - self._timeline.since
        return self._timeline.seconds.get(Phase.READY, 0.0)

    def begin(self) -> None:
        """Begin a new run, with the check of the weights: forget the earlier run's phases. Troubles stay counted."""
        self._run += 1
        self._percent = self._compile_cache_hit = None
        self._timeline = Timeline(Phase.WEIGHTS_CHECK, self._clock())
        self._write()

    def observe(self, line: str) -> None:
        """Take phase, percentage and cache hit from one line of vLLM's output. Does nothing outside a start-up."""
        if not self.is_starting:
            return
        # the percentage never falls: a draft model loads after the main one, with a bar of its own (-1: 0 % is news)
        if (percent := percent_in(line)) is not None and percent > (self._percent or -1):
            self._percent = percent
            self._write()
        if (hit := cache_hit_in(line)) is not None:
            self._compile_cache_hit = hit  # for the next write
        if (phase := phase_in(line)) is not None:
            self.advance(phase)

    def advance(self, phase: Phase) -> None:
        """Move on to `phase` of the start-up and log it; nothing if the start-up is there already or further."""
        before, self._timeline = self._timeline, self._timeline.advance(phase, self._clock())
        if self._timeline is before:
            return
        self._percent = None
        if phase is Phase.READY:
            self._add_to_history()
        self._write()
        self._log.info(
            "phase",
            phase=phase,
            previous=before.phase,
            previous_s=self._timeline.seconds[before.phase],
            start_s=round(sum(self._timeline.seconds.values()), 3) if phase is Phase.READY else None,
            compile_cache_hit=self._compile_cache_hit if before.phase is Phase.COMPILING else None,
            gb_per_s=self._gb_per_s() if before.phase is Phase.LOADING else None,
        )

    def enter(self, phase: Phase, trouble: Trouble | None = None, problem: str | None = None) -> None:
        """Go to a phase outside the start-up, and count the trouble. `problem` is one line for a person."""
        self._timeline = self._timeline.enter(phase, self._clock())
        self._percent = None
        if trouble:
            self._troubles[trouble] += 1
        self._write(trouble, problem)

    def report_trouble(self, trouble: Trouble, problem: str) -> None:
        """Write to the state file what keeps the current phase from going on; `problem` is one line for a person."""
        self._write(trouble, problem)

    def set_weights_bytes(self, count: int) -> None:
        """Note the size of the weights, from `background`'s thread; the main thread's next write of the file has it."""
        self._weights_bytes = count

    def _gb_per_s(self) -> float | None:
        """Return how fast the weights were loaded, in GB/s, for the log; None if size or time is unknown."""
        seconds = self._timeline.seconds.get(Phase.LOADING)
        return round(self._weights_bytes / 1e9 / seconds, 3) if self._weights_bytes and seconds else None

    def _earlier_starts(self) -> Sequence[history.Start]:
        """Return the starts in the history file; log and ignore a broken one, since it only serves estimates."""
        try:
            return history.read(self._history_file)
        except OSError as error:
            problem = error.strerror
        except ValueError as error:
            problem = str(error)
        self._log.error("history-dropped", file=str(self._history_file), problem=problem)
        return ()

    def _add_to_history(self) -> None:
        """Add this start to the history file and update the estimates; log a failure."""
        try:
            self._usual = history.usual(history.add(self._history_file, self._timeline.seconds))
        except OSError as error:
            self._log.error("history-not-written", file=str(self._history_file), problem=error.strerror)

    def _write(self, trouble: Trouble | None = None, problem: str | None = None) -> None:
        """Replace the state file, after a change; log a failure. A trouble stays in the file until the next change."""
        age = timedelta(seconds=self._clock() - self._timeline.since)
        now = State(
            slug=self._log.slug,
            phase=self._timeline.phase,
            run=self._run,
            seconds=self._timeline.seconds,
            percent=self._percent,
            problem=problem,
            trouble=trouble,
            usual=self._usual,
            weights_bytes=self._weights_bytes,
            compile_cache_hit=self._compile_cache_hit,
            crashes=self._troubles[Trouble.CRASH],
            hangs=self._troubles[Trouble.HANG],
            since=timestamp(datetime.now(UTC) - age),
        )
        try:
            state.write(self._state_file, now)
        except OSError as error:  # a full tmpfs must not end a serving vLLM
            self._log.error("state-not-written", file=str(self._state_file), problem=error.strerror)
