"""Writes output in a thread, so that a reader who stops reading (`docker logs`) does not block process 1. Unread output
is queued up to a bound; beyond it lines are dropped, and one line in their place says how many bytes were lost. If the
reader is gone for good, everything is dropped without a word."""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

_MAX_BYTES = 8 * 1024 * 1024  # that wait to be written to one descriptor
_WRITE_BYTES = 65536  # in one write, as much as a pipe holds


class Sink(Protocol):
    """Where output goes: an `Outlet`, a buffer, or a file."""

    def write(self, data: bytes, /) -> object:
        """Take `data`: whole lines, but for one that is too long or without an end. Nobody uses the result."""


class Outlet:
    """An outlet: a sink that never blocks, for a descriptor that may (stdout or stderr). Starts its thread at once."""

    def __init__(self, descriptor: int, note: Callable[[int], bytes], max_bytes: int = _MAX_BYTES) -> None:
        """Start the thread. `note` returns the log line about lost bytes; at most `max_bytes` wait to be written."""
        self._descriptor = descriptor
        self._note = note
        self._max_bytes = max_bytes
        self._queued: deque[bytes] = deque()
        self._bytes = 0  # queued and being written
        self._lost = 0  # bytes dropped since `note` was last called
        self._changed = threading.Condition()
        threading.Thread(target=self._write_loop, name="outlet", daemon=True).start()

    def write(self, data: bytes, /) -> None:
        """Queue lines for the thread, or drop them and count their bytes as lost if the queue is full. Never blocks."""
        with self._changed:
            if self._bytes + len(data) > self._max_bytes:
                self._lost += len(data)
                return
            self._note_lost()
            self._enqueue(data)

    def drain(self, seconds: float) -> None:
        """Block until all is written, for `seconds` at most. `main` calls it before the process ends."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._bytes and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _enqueue(self, data: bytes) -> None:
        """Add to the queue and wake the thread. The caller holds `_changed`."""
        self._queued.append(data)
        self._bytes += len(data)
        self._changed.notify_all()

    def _note_lost(self) -> None:
        """Queue the line about lost bytes, if any were, even beyond the bound. The caller holds `_changed`."""
        if self._lost:
            lost, self._lost = self._lost, 0
            self._enqueue(self._note(lost))

    def _write_loop(self) -> None:
        """Write what is queued, for ever, in the thread; the lock is not held during a write, which may block."""
        while True:
            data = self._next()
            self._deliver(data)
            with self._changed:
                self._bytes -= len(data)
                if not self._queued:  # no later `write` may come to say it
                    self._note_lost()
                self._changed.notify_all()

    def _next(self) -> bytes:
        """Block the thread until there is data, and take it from the queue; it counts in `_bytes` until written."""
        with self._changed:
            while not self._queued:
                self._changed.wait()
            return self._queued.popleft()

    def _deliver(self, data: bytes) -> None:
        """Write all of `data`, blocking; drop the rest if the descriptor fails."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view[:_WRITE_BYTES]) :]
            except BlockingIOError:  # whoever opened the descriptor made it non-blocking
                self._await_writable()
            except OSError:  # the reader is gone, or the disk is full
                return

    def _await_writable(self) -> None:
        """Block the thread until the descriptor, which is non-blocking, can be written to."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll()
