"""Structured logs: one JSON object a line on standard output, one shape for every event."""

import asyncio
import sys
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

import orjson

FLUSH_S = 0.02
MOST_LINES = 256  # that wait


class EventLog:
    """Writes events. `event` is a fixed word; the rest are its facts. Never bodies, never keys.

    Lines of requests are written together, at most `FLUSH_S` seconds late; any other line is written at once, behind
    those that wait.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._lines: list[bytes] = []

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
            self._stream.write(b"".join(lines).decode())
            self._stream.flush()

    def _write(self, level: str, event: str, facts: dict[str, object]) -> None:
        self._add(level, event, facts)
        self.flush()

    def _add(self, level: str, event: str, facts: dict[str, object]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"ts": now, "level": level, "logger": "gateway", "event": event, **facts}
        self._lines.append(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
