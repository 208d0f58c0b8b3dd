"""Structured logs: one JSON object a line on standard output, one shape for every event."""

import asyncio
import time
import traceback
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import orjson

from gateway.telemetry.log_writer import LogWriter, write

STDOUT: Final = 1
FLUSH_S: Final = 0.02  # for which lines of requests are collected, to wake the writing thread once for many
MAX_LINES: Final = 256  # that wait to be handed over


def timestamp(milliseconds: int) -> str:
    """Return ISO 8601, UTC, for milliseconds since 1970, as log lines have it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def line_of(moment: str, level: str, event: str, facts: dict[str, object], logger: str = "gateway") -> bytes:
    """Return an event as a line of JSON. A fact of a type that JSON does not have is written as its `str`."""
    line = {"ts": moment, "level": level, "logger": logger, "event": event, **facts}
    return orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE)


def dropped_line(count: int, logger: str = "gateway") -> bytes:
    """Return the log line that reports `count` lines missing before it, for the writer to write itself."""
    moment = timestamp(int(time.time() * 1000))
    return line_of(moment, "warning", "log_lines_dropped", {"lines": count}, logger)


class Out(Protocol):
    """Where log lines go; LogWriter is the real one, and tests keep the lines. dropped: how many were not written."""

    dropped: int

    def put(self, lines: list[bytes]) -> None:
        """Take lines, without blocking: this runs in the event loop."""

    def close(self) -> None:
        """Write what waits, at the end of the process."""


class EventLog:
    """Writes events as JSON lines. `event` is a fixed word, the other fields are its facts; bodies and keys are never
    logged. Lines of requests are collected for at most FLUSH_S seconds and written together; any other line is written
    at once, after those that wait. out: None for standard output; logger: the name of the log in its lines. One per
    process, which all parts get; `AuditTrail` has one of its own."""

    def __init__(self, out: Out | None = None, logger: str = "gateway") -> None:
        self._logger = logger
        self._out: Out = LogWriter(partial(write, STDOUT), dropped_line) if out is None else out
        self._lines: list[bytes] = []
        self._last, self._timestamp = 0, ""  # milliseconds: the second half is worked out once for each

    @property
    def dropped(self) -> int:
        """Return how many lines could not be written since the start, for the metrics."""
        return self._out.dropped

    def request(self, loop: asyncio.AbstractEventLoop, **facts: object) -> None:
        """Collect the line of a request that is over, as `Recorder` says; it is written within FLUSH_S seconds."""
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
        """Log an unexpected exception of the gateway's own code, a bug, with its traceback."""
        where = "".join(traceback.format_exception(error))
        self.error("fault", message=f"{type(error).__name__}: {error}", traceback=where, **facts)

    def flush(self) -> None:
        """Pass the collected lines to the writer: a timer calls this, and whatever must not wait."""
        lines, self._lines = self._lines, []
        if lines:
            self._out.put(lines)

    def close(self) -> None:
        """Write what waits, as far as the reader takes it in time, at the end of the process."""
        self.flush()
        self._out.close()

    def _write(self, level: str, event: str, facts: dict[str, object]) -> None:
        """Write the line of an event at once, after the lines that were collected before it."""
        self._add(level, event, facts)
        self.flush()

    def _add(self, level: str, event: str, facts: dict[str, object]) -> None:
        """Collect the line of an event, with the present time; `flush` passes it on."""
        milliseconds = int(time.time() * 1000)
        if milliseconds != self._last:  # its text is made once per millisecond
            self._last, self._timestamp = milliseconds, timestamp(milliseconds)
        self._lines.append(line_of(self._timestamp, level, event, facts, self._logger))
