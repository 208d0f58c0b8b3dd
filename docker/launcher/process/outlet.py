"""Output written by a thread of its own, so that a reader who stops reading blocks nobody.

Unread output is kept up to a bound; beyond it lines are dropped, and one line in their place says how many bytes that
were. Without a reader everything is dropped, and the process goes on.
"""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

_KEPT_BYTES = 8 * 1024 * 1024
_WRITE_BYTES = 65536


class Sink(Protocol):
    """Takes whole lines."""

    def write(self, data: bytes, /) -> object:
        """Take them."""


class Outlet:
    """A sink that never blocks, over a descriptor that may."""

    def __init__(self, descriptor: int, note: Callable[[int], bytes], kept_bytes: int = _KEPT_BYTES) -> None:
        """`note` makes the line that says how many bytes were lost."""
        self._descriptor = descriptor
        self._note = note
        self._kept_bytes = kept_bytes
        self._queued: deque[bytes] = deque()
        self._bytes = 0  # queued and being written
        self._lost = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._write_on, name="outlet", daemon=True).start()

    def write(self, data: bytes, /) -> None:
        """Queue lines; never waits for their reader."""
        with self._changed:
            if self._bytes + len(data) > self._kept_bytes:
                self._lost += len(data)
                return
            self._tell_lost()
            self._put(data)

    def drain(self, seconds: float) -> None:
        """Wait until all is written, for `seconds` at most."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._bytes and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _put(self, data: bytes) -> None:
        self._queued.append(data)
        self._bytes += len(data)
        self._changed.notify_all()

    def _tell_lost(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            self._put(self._note(lost))

    def _write_on(self) -> None:
        while True:
            data = self._next()
            self._deliver(data)
            with self._changed:
                self._bytes -= len(data)
                if not self._queued:
                    self._tell_lost()
                self._changed.notify_all()

    def _next(self) -> bytes:
        with self._changed:
            while not self._queued:
                self._changed.wait()
            return self._queued.popleft()

    def _deliver(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view[:_WRITE_BYTES]) :]
            except BlockingIOError:  # the descriptor was made non-blocking by whoever gave it to us
                self._await_room()
            except OSError:  # the reader is gone, or the disk is full
                return

    def _await_room(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll()
