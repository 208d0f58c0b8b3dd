"""Structured logs: one JSON object a line on standard output, one shape for every event."""

import asyncio
import time
import traceback
from datetime import UTC, datetime
from typing import Final, Protocol

import orjson

from gateway.telemetry.log_writer import LogWriter

STDOUT: Final = 1
FLUSH_S: Final = 0.02
MAX_LINES: Final = 256  # that wait to be handed over


def timestamp(milliseconds: int) -> str:
    """Return ISO 8601, UTC, for milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def line_of(moment: str, level: str, event: str, facts: dict[str, object]) -> bytes:
    line = {"ts": moment, "level": level, "logger": "gateway", "event": event, **facts}
    return orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE)


def dropped_line(count: int) -> bytes:
    """Return the log line that reports `count` lines missing before it."""
    return line_of(timestamp(int(time.time() * 1000)), "warning", "log_lines_dropped", {"lines": count})


class Out(Protocol):
    """Where log lines go; LogWriter is the real one."""

    dropped: int

    def put(self, lines: list[bytes]) -> None: ...

    def close(self) -> None: ...


class EventLog:
    """Writes events as JSON lines. `event` is a fixed word, the other fields are its facts; bodies and keys are never
    logged.

    Lines of requests are collected for at most FLUSH_S seconds and written together; any other line is written at
    once, after those that wait. out: None for standard output.
    """

    def __init__(self, out: Out | None = None) -> None:
        self._out: Out = LogWriter(STDOUT, dropped_line) if out is None else out
        self._lines: list[bytes] = []
        self._last, self._timestamp = 0, ""  # milliseconds: the second half is worked out once for each

    @property
    def dropped(self) -> int:
        """Return how many lines could not be written."""
        return self._out.dropped

    def request(self, loop: asyncio.AbstractEventLoop, **facts: object) -> None:
        """Collect the line of a request that is over, and have it written within FLUSH_S seconds."""
        if not self._lines:
            loop.call_later(FLUSH_S, self.flush)
        self._add("info", "request", facts)
        if len(self._lines) >= MAX_LINES:
            self.flush()

    def info(self, event: str, **facts: object) -> None:
        self._write("info", event, facts)

    def warning(self, event: str, **facts: object) -> None:
        self._write("warning", event, facts)

    def error(self, event: str, **facts: object) -> None:
        self._write("error", event, facts)

    def fault(self, error: Exception, **facts: object) -> None:
        """Log an unexpected exception of the gateway's own code, with its traceback."""
        where = "".join(traceback.format_exception(error))
        self.error("fault", message=f"{type(error).__name__}: {error}", traceback=where, **facts)

    def flush(self) -> None:
        """Pass the collected lines to the writer."""
        lines, self._lines = self._lines, []
        if lines:
            self._out.put(lines)

    def close(self) -> None:
        """Write what waits, as far as the reader takes it in time."""
        self.flush()
        self._out.close()

    def _write(self, level: str, event: str, facts: dict[str, object]) -> None:
        self._add(level, event, facts)
        self.flush()

    def _add(self, level: str, event: str, facts: dict[str, object]) -> None:
        milliseconds = int(time.time() * 1000)
        if milliseconds != self._last:  # its text is made once per millisecond
            self._last, self._timestamp = milliseconds, timestamp(milliseconds)
        self._lines.append(line_of(self._timestamp, level, event, facts))
