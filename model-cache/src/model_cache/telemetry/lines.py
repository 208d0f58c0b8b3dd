"""Lines of JSON, written beside the event loop: a standard output that nobody reads holds nobody up."""

import json
import os
import queue
import threading
from contextlib import suppress
from types import TracebackType
from typing import TextIO

_MOST_LINES = 1000
_LAST_S = 2.0  # for what is left at the end


class Lines:
    """Those on their way to *stream*. What finds no room is counted, and told as soon as there is some."""

    def __init__(self, stream: TextIO) -> None:
        # not the stream itself: the interpreter would wait at its end for the lock of one that nobody reads
        self._descriptor = stream.fileno()
        self._queue: queue.Queue[str | None] = queue.Queue(_MOST_LINES)
        self._lost = 0
        self._thread = threading.Thread(target=self._write, name="lines", daemon=True)

    def say(self, **what: object) -> None:
        """One line; returns at once."""
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The lines that are left are written, if somebody reads them soon."""
        try:
            self._queue.put(None, timeout=_LAST_S)
        except queue.Full:
            return
        self._thread.join(_LAST_S)

    def _write(self) -> None:
        with suppress(OSError):  # whoever read them has gone
            self._write_all()

    def _write_all(self) -> None:
        while (line := self._queue.get()) is not None:
            left = line.encode() + b"\n"
            while left:
                left = left[os.write(self._descriptor, left) :]
