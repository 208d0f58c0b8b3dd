"""What the kernel expects of process 1: handle the signals that end a container, reap orphans.

Waiting happens in one place, `Init.wait`, which wakes for a signal, an ended process, readable output or `Init.wake`.
The kernel drops a stop signal that process 1 neither handles nor blocks. So the image's entry point blocks them before
Python begins (`env --block-signal`), and what has come by the time an `Init` is entered is noted then.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import signal
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

from launcher.process import process_tree
from launcher.process.process_tree import Relative

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_MOST_REAPED_AT_ONCE = 4096
_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_WAIT_S = 3600.0


class CancelledError(Exception):
    """Told to stop in the middle of something."""


def let_stop_signals_in() -> None:
    """Obey SIGTERM and SIGINT from now on, and those that have come while they were blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


@dataclass(frozen=True)
class Wake:
    """What `wait` found: file descriptors with output, and exit codes (negative: a signal) by process id."""

    readable: tuple[int, ...] = ()
    ended: Mapping[int, int] = field(default_factory=dict)


class Init:
    """A context in which stop signals are noted instead of obeyed, and every ended child is reaped.

    One at a time, in the main thread; leaving restores the handlers there were.
    """

    def __init__(self) -> None:
        """No effect until entered."""
        self.stop_signal: signal.Signals | None = None
        self.others: Collection[Relative] = ()
        """The processes below this one as it was entered, before any program was started."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Init:
        """Take over SIGTERM, SIGINT and SIGCHLD, and the orphans of what we start, also where we are not process 1."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.others = frozenset(process_tree.below(os.getpid()))
        self._bell, self._ringer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._ringer, warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._note_stop)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        let_stop_signals_in()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self._bell)
        os.close(self._ringer)

    @property
    def stopping(self) -> bool:
        """Whether SIGTERM or SIGINT has come."""
        return self.stop_signal is not None

    def wait(self, seconds: float | None, readers: Iterable[int] = ()) -> Wake:
        """Sleep until a signal, an ended child, output on `readers` or `seconds` (None: for ever)."""
        poll = select.poll()  # takes descriptors of any number, as select does not
        for reader in (self._bell, *readers):
            poll.register(reader, select.POLLIN)
        readable = [reader for reader, _ in poll.poll(_milliseconds(seconds))]
        if self._bell in readable:
            readable.remove(self._bell)
            os.read(self._bell, 4096)
        return Wake(tuple(readable), _reap())

    def wake(self) -> None:
        """End a `wait`, from any thread."""
        with suppress(OSError):
            os.write(self._ringer, b"\0")

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = self.stop_signal or signal.Signals(number)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(min(max(seconds, 0.0), _LONGEST_WAIT_S) * 1000)


def _reap() -> dict[int, int]:
    """Collect every child that has ended, adopted orphans included; exit codes by process id."""
    ended: dict[int, int] = {}
    for _ in range(_MOST_REAPED_AT_ONCE):
        try:
            process_id, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if process_id == 0:
            break
        ended[process_id] = os.waitstatus_to_exitcode(status)
    return ended
