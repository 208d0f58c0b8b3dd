"""Structured logs: one JSON object a line on standard output, one shape for every event."""

import asyncio
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from select import PIPE_BUF
from typing import Final, TextIO

import orjson

FLUSH_S: Final = 0.02
MOST_LINES: Final = 256  # that wait


def pieces(lines: list[bytes]) -> Iterator[bytes]:
    """The lines, put together as far as a pipe takes them in one: other processes write to it too."""
    piece = b""
    for line in lines:
        if len(piece) + len(line) > PIPE_BUF and piece:
            yield piece
            piece = b""
        piece += line
    yield piece


def timestamp(milliseconds: int) -> str:
    """ISO 8601 of a moment since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


class EventLog:
    """Writes events. `event` is a fixed word; the rest are its facts. Never bodies, never keys.

    Lines of requests are written together, at most `FLUSH_S` seconds late; any other line is written at once, behind
    those that wait.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._lines: list[bytes] = []
        self._last, self._timestamp = 0, ""  # milliseconds: the second half is worked out once for each

    def request(self, loop: asyncio.AbstractEventLoop, **facts: object) -> None:
        if not self._lines:
            loop.call_later(FLUSH_S, self.flush)
        self._add("info", "request", facts)
        if len(self._lines) >= MOST_LINES:
            self.flush()

    def info(self, event: str, **facts: object) -> None:
        self._write("info", event, facts)

    def warning(self, event: str, **facts: object) -> None:
        self._write("warning", event, facts)

    def error(self, event: str, **facts: object) -> None:
        self._write("error", event, facts)

    def fault(self, error: Exception, **facts: object) -> None:
        """A fault of the gateway's own, with where it is."""
        where = "".join(traceback.format_exception(error))
        self.error("fault", message=f"{type(error).__name__}: {error}", traceback=where, **facts)

    def flush(self) -> None:
        """Writes what waits. Where nothing can be written (a full disk, a closed pipe) lines are lost, not requests."""
        lines, self._lines = self._lines, []
        with suppress(OSError):
            for piece in pieces(lines):
                self._stream.write(piece.decode())
                self._stream.flush()

    def _write(self, level: str, event: str, facts: dict[str, object]) -> None:
        self._add(level, event, facts)
        self.flush()

    def _add(self, level: str, event: str, facts: dict[str, object]) -> None:
        milliseconds = int(time.time() * 1000)
        if milliseconds != self._last:
            self._last, self._timestamp = milliseconds, timestamp(milliseconds)
        line = {"ts": self._timestamp, "level": level, "logger": "gateway", "event": event, **facts}
        self._lines.append(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
