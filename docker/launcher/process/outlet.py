"""Where lines go: written by a thread of its own, so that a reader who has stopped reading stops nobody else.

What the reader has not taken is kept up to a bound. What comes beyond it is dropped, and a line in its place says how
many bytes that were. A reader who is gone loses everything, and the process goes on.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

_KEPT_BYTES = 8 * 1024 * 1024
_WRITTEN_AT_ONCE = 65536


class Sink(Protocol):
    """Whatever takes whole lines."""

    def write(self, data: bytes, /) -> object:
        """Take them."""


class Outlet:
    """A sink that never waits, over a descriptor that may."""

    def __init__(self, descriptor: int, note: Callable[[int], bytes], kept_bytes: int = _KEPT_BYTES) -> None:
        """`note` is the line that stands for so many bytes lost."""
        self._descriptor = descriptor
        self._note = note
        self._kept_bytes = kept_bytes
        self._waiting: deque[bytes] = deque()
        self._bytes = 0  # of what waits and of what is being written
        self._lost = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._write_on, name="outlet", daemon=True).start()

    def write(self, data: bytes, /) -> None:
        """Take lines to be written; never waits for their reader."""
        with self._changed:
            if self._bytes + len(data) > self._kept_bytes:
                self._lost += len(data)
                return
            self._tell_lost()
            self._put(data)

    def drain(self, seconds: float) -> None:
        """Wait until all is written, or so many seconds."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._bytes and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
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
                if not self._waiting:
                    self._tell_lost()
                self._changed.notify_all()

    def _next(self) -> bytes:
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            return self._waiting.popleft()

    def _deliver(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view[:_WRITTEN_AT_ONCE]) :]
            except BlockingIOError:  # whoever gave it to us does not let it wait
                self._await_room()
            except OSError:  # nobody reads any more, or the disk is full
                return

    def _await_room(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll()
