"""Writes the launcher's own log: one JSON object a line on standard output, between vLLM's unchanged lines."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from launcher.process.outlet import Sink


def timestamp(moment: datetime | None = None) -> str:
    """Return `moment` (in UTC), or now, in ISO 8601 with milliseconds, as log, state file and GPU locks have it."""
    moment = moment or datetime.now(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line(slug: str, level: str, event: str, fields: dict[str, object]) -> bytes:
    """Return a log line `{"ts", "level", "logger", "slug", "event", ...}`; `fields` that are None are left out."""
    head = {"ts": timestamp(), "level": level, "logger": "launcher", "slug": slug, "event": event}
    said = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(head | said, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


@dataclass(frozen=True)
class Log:
    """Writes log lines of one slug to `out`, without blocking if that is an `Outlet`."""

    slug: str
    out: Sink

    def info(self, event: str, **fields: object) -> None:
        """Log something worth knowing."""
        self.out.write(line(self.slug, "info", event, fields))

    def error(self, event: str, **fields: object) -> None:
        """Log something that prevents serving, or that a person should look at."""
        self.out.write(line(self.slug, "error", event, fields))
