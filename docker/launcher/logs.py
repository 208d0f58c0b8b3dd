"""The launcher's own log: one JSON object a line on standard output, beside vLLM's untouched lines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO


def timestamp(moment: datetime | None = None) -> str:
    """ISO 8601 in UTC with milliseconds, of `moment` or of now."""
    moment = moment or datetime.now(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Log:
    """Writes `{"ts", "level", "logger", "slug", "event", ...}`; fields that are None are left out."""

    slug: str
    out: BinaryIO

    def info(self, event: str, **fields: object) -> None:
        """Something happened that a reader of the log wants to know."""
        self._write("info", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something stands in the way of serving."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        head = {"ts": timestamp(), "level": level, "logger": "launcher", "slug": self.slug, "event": event}
        said = {name: value for name, value in fields.items() if value is not None}
        self.out.write(json.dumps(head | said, ensure_ascii=False).encode() + b"\n")
        self.out.flush()
