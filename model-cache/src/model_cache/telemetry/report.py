"""The run's output: lines for people on a terminal, JSON lines for machines."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TextIO

from model_cache.telemetry.progress import Phase, Progress, ProgressState, Work

_INTERVAL_S = 2.0  # between lines, in phases of `_MOVING`
_BAR = 24  # columns
_ERASE = "\r\x1b[2K"  # erases the current line
_NONE = Work()
_MOVING: tuple[Phase, ...] = ("downloading", "verifying")  # in which bytes arrive or are read back

Render = Callable[[ProgressState, str | None], str]
"""Turns the state, and a remark where there is one, into a line without its end."""


class Reporter:
    """Writes a line at each phase and remark, and every two seconds in a phase of `_MOVING`. *redraws*: on a terminal
    those are one line, with a bar, that is drawn again and again."""

    def __init__(self, progress: Progress, stream: TextIO, render: Render, *, redraws: bool = False) -> None:
        self._redraws = redraws
        self._progress = progress
        self._stream = stream
        self._render = render
        self._lock = threading.Lock()  # the periodic_lines thread writes lines too

    def line(self, remark: str | None = None) -> None:
        """Write a line with the state now and the *remark*, if any; from any thread."""
        with self._lock:
            begin = _ERASE if self._redraws else ""
            self._stream.write(begin + self._render(self._progress.state(), remark) + "\n")
            self._stream.flush()

    def _draw(self) -> None:
        """Draw the bar over the last one, on a terminal, cut to its width: a longer line could not be drawn over."""
        columns = shutil.get_terminal_size().columns - 1
        with self._lock:
            self._stream.write(_ERASE + bar_line(self._progress.state())[:columns])
            self._stream.flush()

    def enter(
        self, phase: Phase, total: Work = _NONE, already: Work = _NONE, remark: str | None = None
    ) -> None:
        """Begin a phase of *total* work, *already* done in part, and write a line with *remark* or else the amount."""
        self._progress.enter(phase, total, already)
        self.line(remark)

    @contextmanager
    def periodic_lines(self, interval_s: float = _INTERVAL_S) -> Iterator[None]:
        """While the block runs, write a line or a bar every *interval_s* seconds, in a thread, as a sign of life."""
        done = threading.Event()
        thread = threading.Thread(target=self._tick, args=(done, interval_s), name="reporter", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _tick(self, done: threading.Event, interval_s: float) -> None:
        """Write every *interval_s* seconds, in the thread, until *done* is set, if the phase then is of `_MOVING`."""
        while not done.wait(interval_s):
            if self._progress.state().phase in _MOVING:
                self._draw() if self._redraws else self.line()


def renderer(style: str, *, terminal: bool) -> Render:
    """Return the renderer for MODEL_CACHE_PROGRESS: json, text, or auto (text on a terminal only)."""
    return text_line if style == "text" or (style == "auto" and terminal) else json_line


def json_line(state: ProgressState, remark: str | None) -> str:
    """Return the state as one JSON object, with the time and a remark (or null)."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "remark": remark, **asdict(state)}, ensure_ascii=False)


def text_line(state: ProgressState, remark: str | None) -> str:
    """Return the phase and *remark*, or else ``downloading   41%  498.2 MB of 1.2 GB  85.1 MB/s  0:00:08 left``."""
    columns = [remark] if remark else [_amount(state)]
    if state.phase in _MOVING and not remark:
        columns += [_rate(state), state.current_file or ""]
    return f"{state.phase:<12}  {'  '.join(filter(None, columns))}".rstrip()


def bar_line(state: ProgressState) -> str:
    """Return the state as a line to draw over: ``downloading   [########............]  41%  498.2 MB of 1.2 GB``."""
    filled = min(_BAR, _BAR * state.bytes_done // max(1, state.bytes_total))  # 0 if all files are empty
    phase, numbers = text_line(state, None).split("  ", 1)  # the phase is padded with blanks
    return f"{phase:<12}  [{'#' * filled:.<{_BAR}}]  {numbers.strip()}"


def human_bytes(count: float) -> str:
    """Return bytes in decimal units, as disks and networks are sold: 1234567 is ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.95 or (unit == "B" and count < 1000):  # 999.95 kB would be written as 1000.0
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _amount(state: ProgressState) -> str:
    """Return how much of the phase is done: of its bytes, or else its files, or else only the repository's name."""
    if not state.bytes_total:
        return f"{state.files_total} files" if state.files_total else state.repo
    percent = 100 * state.bytes_done // state.bytes_total
    return f"{percent:3d}%  {human_bytes(state.bytes_done)} of {human_bytes(state.bytes_total)}"


def _rate(state: ProgressState) -> str:
    """Return the rate and the time left, or "" while the rate is 0: then the time left is unknown."""
    if state.eta_s is None:
        return ""
    return f"{human_bytes(state.rate_bytes_per_s)}/s  {timedelta(seconds=round(state.eta_s))} left"
