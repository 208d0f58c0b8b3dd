"""The duties of process 1: handle the signals that stop a container, and reap orphans. The main thread waits only in
`Init.wait`, which returns for a signal, an ended process, readable output or `Init.wake`. The kernel drops a stop
signal that process 1 neither handles nor blocks. So the image's entry point blocks them before Python begins (`env
--block-signal`), and signals that arrived meanwhile are handled once an `Init` is entered."""

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
from launcher.process.process_tree import Descendant

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_MAX_REAPED_AT_ONCE = 4096  # children in one `wait`, so that a flood of them holds nothing up
_PR_SET_CHILD_SUBREAPER = 36  # of prctl(2): orphaned descendants become this process's children
_MAX_WAIT_S = 3600.0  # of one `wait`, which returns empty then: `poll` takes milliseconds in a C int


class CancelledError(Exception):
    """A stop signal arrived, so the work was given up."""


def unblock_stop_signals() -> None:
    """Unblock SIGTERM and SIGINT in this thread, as `__main__` blocks them; those that came since are handled now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


@dataclass(frozen=True)
class WaitResult:
    """What `Init.wait` found: readable descriptors, and exit codes (negative: a signal) of all reaped by process id."""

    readable: tuple[int, ...] = ()
    ended: Mapping[int, int] = field(default_factory=dict)


class Init:
    """A context in which stop signals are recorded and every ended child is reaped. `main` enters the only one, in the
    main thread. Leaving restores the earlier signal handlers. `stop_signal` is the first that has arrived, or None."""

    def __init__(self) -> None:
        self.stop_signal: signal.Signals | None = None
        self.spared: Collection[Descendant] = ()
        """Descendants from before the context, such as a shell's that execs the launcher; they are never killed."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Init":
        """Handle SIGTERM, SIGINT and SIGCHLD, and adopt orphaned descendants, even if this is not process 1."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.spared = frozenset(process_tree.descendants(os.getpid()))
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._note_stop)
        # Python writes to the wake-up pipe only for signals that have a handler
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        unblock_stop_signals()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the earlier signal handlers and close the wake-up pipe."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    @property
    def stopping(self) -> bool:
        """Whether SIGTERM or SIGINT has arrived."""
        return self.stop_signal is not None

    def wait(self, seconds: float | None, readers: Iterable[int] = ()) -> WaitResult:
        """Block until a signal, an ended child, a `wake` or input on `readers`; `seconds` at most (None: no limit)."""
        poll = select.poll()  # takes descriptors of any number, as select does not
        for reader in (self._wake_reader, *readers):
            poll.register(reader, select.POLLIN)
        readable = [reader for reader, _ in poll.poll(_milliseconds(seconds))]
        if self._wake_reader in readable:
            readable.remove(self._wake_reader)
            os.read(self._wake_reader, 4096)  # to empty the pipe; bytes left only end the next wait early
        return WaitResult(tuple(readable), _reap())

    def wake(self) -> None:
        """Make the current or next `wait` return, from any thread. A full pipe does so too; a closed one is ignored."""
        with suppress(OSError):
            os.write(self._wake_writer, b"\0")

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        """Keep the first stop signal, in the main thread; Python also writes to the wake-up pipe, so `wait` returns."""
        self.stop_signal = self.stop_signal or signal.Signals(number)


def _milliseconds(seconds: float | None) -> int | None:
    """Return the timeout for `poll` in milliseconds, rounded up so that it is not over too early; None for no limit."""
    return None if seconds is None else math.ceil(min(max(seconds, 0.0), _MAX_WAIT_S) * 1000)


def _reap() -> dict[int, int]:
    """Reap the children that have ended, adopted orphans included, which would stay zombies otherwise; the next call
    takes what is left. Return exit codes (negative: a signal) by process id."""
    ended: dict[int, int] = {}
    for _ in range(_MAX_REAPED_AT_ONCE):
        try:
            process_id, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if process_id == 0:
            break
        ended[process_id] = os.waitstatus_to_exitcode(status)
    return ended
