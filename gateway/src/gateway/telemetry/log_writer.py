"""A thread that writes log lines, so that a slow or absent reader or a slow disk never blocks the event loop. The lines
that wait are bounded. Lines that find no room are dropped and counted; the count is logged once writing goes on.
`EventLog` owns a writer and calls `put` in the event loop; the methods that may block run in the thread."""

import os
import select
import threading
from collections.abc import Callable, Iterator
from select import PIPE_BUF
from typing import Final

MAX_BYTES: Final = 4 * 1024 * 1024  # that wait, some ten thousand lines
CLOSE_S: Final = 2.0  # that the end of the process waits for a reader

Write = Callable[[bytes], None]  # writes all of the bytes, however long that takes; raises OSError


class LogWriter:
    """The writer of one log. `write` writes to where it goes; `tell` makes the line that reports how many lines were
    dropped."""

    def __init__(self, write: Write, tell: Callable[[int], bytes], most_bytes: int = MAX_BYTES) -> None:
        self._write = write
        self._tell = tell
        self._most_bytes = most_bytes
        self._change = threading.Condition()  # guards all below but `_thread`, which is for `put`, `close`
        self._lines: list[bytes] = []
        self._bytes = 0  # of these and of those that are being written
        self._untold = 0  # dropped lines that no line in the log has told of
        self._closed = False
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def put(self, lines: list[bytes]) -> None:
        """Queue lines for the thread, or drop them if too many bytes wait. Never blocks."""
        size = sum(map(len, lines))
        with self._change:
            if self._bytes + size > self._most_bytes:
                self._note_dropped(len(lines))
                return
            self._lines += lines
            self._bytes += size
            self._change.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    def close(self, within_s: float = CLOSE_S) -> None:
        """Write what waits, for at most `within_s` seconds, and end the thread: the process ends, reader or not."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join(within_s)

    def _run(self) -> None:
        """Write lines until the writer is closed: the body of the thread, which the first `put` starts."""
        while lines := self._next():
            for piece in pieces(lines):
                self._write_counted(piece)
            self._tell_dropped()

    def _next(self) -> list[bytes]:
        """Wait for lines and return them; an empty list once the writer is closed and all are written."""
        with self._change:
            self._change.wait_for(lambda: self._lines or self._closed)
            lines, self._lines = self._lines, []
        return lines

    def _write_counted(self, piece: bytes) -> None:
        """Write a piece. If it cannot be written (full disk, closed pipe), count its lines as dropped."""
        try:
            self._write(piece)
            lost = 0
        except OSError:
            lost = piece.count(b"\n")
        with self._change:
            self._bytes -= len(piece)
            self._note_dropped(lost)

    def _tell_dropped(self) -> None:
        """Report dropped lines, without the lock, since writing may block; `put` may drop more meanwhile."""
        with self._change:
            untold = self._untold
        if not untold:
            return
        try:
            self._write(self._tell(untold))
        except OSError:
            return
        with self._change:
            self._untold -= untold

    def _note_dropped(self, lines: int) -> None:
        """Count dropped lines; the caller holds the lock."""
        self.dropped += lines
        self._untold += lines


def pieces(lines: list[bytes]) -> Iterator[bytes]:
    """Join lines into pieces that a pipe takes in one write, so that lines of several processes do not mix. A line
    longer than PIPE_BUF is a piece of its own."""
    piece = b""
    for line in lines:
        if len(piece) + len(line) > PIPE_BUF and piece:
            yield piece
            piece = b""
        piece += line
    yield piece


def write(descriptor: int, data: bytes) -> None:
    """Write all of `data`, however long that takes: only the thread calls this. Raises OSError."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another holder of the descriptor made it non-blocking
            wait_until_writable(descriptor)


def wait_until_writable(descriptor: int) -> None:
    """Block until a write to a non-blocking descriptor can go on, without the processor time of trying again."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
