"""Structured logs: one JSON object a line on standard output, one shape for every event."""

import sys
from datetime import UTC, datetime
from typing import TextIO

import orjson


class EventLog:
    """Writes events. `event` is a fixed word; the rest are its facts. Never bodies, never keys."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def info(self, event: str, **facts: object) -> None:
        self._write("info", event, facts)

    def warning(self, event: str, **facts: object) -> None:
        self._write("warning", event, facts)

    def error(self, event: str, **facts: object) -> None:
        self._write("error", event, facts)

    def _write(self, level: str, event: str, facts: dict[str, object]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"ts": now, "level": level, "logger": "gateway", "event": event, **facts}
        self._stream.write(orjson.dumps(line, default=str).decode() + "\n")
        self._stream.flush()
