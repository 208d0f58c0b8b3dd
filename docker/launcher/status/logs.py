"""The launcher's own log: one JSON object a line on standard output, beside vLLM's untouched lines."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from launcher.process.outlet import Sink


def timestamp(moment: datetime | None = None) -> str:
    """ISO 8601 in UTC with milliseconds, of `moment` or of now."""
    moment = moment or datetime.now(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line(slug: str, level: str, event: str, fields: dict[str, object]) -> bytes:
    """`{"ts", "level", "logger", "slug", "event", ...}`; fields that are None are left out."""
    head = {"ts": timestamp(), "level": level, "logger": "launcher", "slug": slug, "event": event}
    said = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(head | said, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


@dataclass(frozen=True)
class Log:
    """Writes the launcher's lines for one slug."""

    slug: str
    out: Sink

    def info(self, event: str, **fields: object) -> None:
        """Something worth knowing happened."""
        self.out.write(line(self.slug, "info", event, fields))

    def error(self, event: str, **fields: object) -> None:
        """Something prevents serving."""
        self.out.write(line(self.slug, "error", event, fields))
