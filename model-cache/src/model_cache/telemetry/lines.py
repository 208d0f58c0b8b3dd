"""JSON lines, written by a thread, so that a standard output that nobody reads does not block serve-weights' loop."""

import json
import os
import queue
import threading
from contextlib import suppress
from typing import TextIO

_MAX_LINES = 1000  # that wait to be written
_LAST_S = 2.0  # seconds, at exit: to queue the end, and as many to write what is left


class Lines:
    """A bounded queue of lines to *stream*. Lines that do not fit are counted, and the count is written later."""

    def __init__(self, stream: TextIO) -> None:
        # not the stream itself: at exit the interpreter would wait for its lock while nobody reads
        self._descriptor = stream.fileno()
        self._queue: queue.Queue[str | None] = queue.Queue(_MAX_LINES)
        self._lost = 0  # lines, until the next one fits
        self._thread = threading.Thread(target=self._write, name="lines", daemon=True)

    def say(self, **what: object) -> None:
        """Queue one line of JSON; never blocks. A line that does not fit is counted as lost."""
        try:
            if self._lost:
                self._queue.put_nowait(json.dumps({"event": "lines-lost", "count": self._lost}))
                self._lost = 0
            self._queue.put_nowait(json.dumps(what))
        except queue.Full:
            self._lost += 1

    def __enter__(self) -> "Lines":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write the lines that are left, within four seconds; the rest is lost: the thread ends with the process."""
        try:
            self._queue.put(None, timeout=_LAST_S)
        except queue.Full:  # nobody reads
            return
        self._thread.join(_LAST_S)

    def _write(self) -> None:
        """Write queued lines, in the thread, until `__exit__` queues None; end at once when the reader has gone."""
        with suppress(OSError):  # the reader has gone
            while (line := self._queue.get()) is not None:
                left = line.encode() + b"\n"
                while left:  # a pipe may take a part
                    left = left[os.write(self._descriptor, left) :]
