"""The state file: what the launcher is doing now, for the health check and for people.

`LAUNCHER_STATE_DIR/state.json`, replaced atomically at every change:
`{"schema": 1, "slug", "phase", "since" (UTC), "run" (vLLM starts so far), "seconds" (per phase done),
"percent" (weights loaded) | null, "problem": "one line" | null}`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from launcher.logs import timestamp
from launcher.phases import Phase


@dataclass(frozen=True)
class State:
    """One moment of a launcher; `since` is when the phase began, `seconds` what each phase before it took."""

    slug: str
    phase: Phase
    run: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    percent: int | None = None
    problem: str | None = None
    since: str = field(default_factory=timestamp)

    def describe(self, now: datetime | None = None) -> str:
        """A few words for a person: phase, progress, age, problem."""
        age = (now or datetime.now(UTC)) - datetime.fromisoformat(self.since)
        percent = "" if self.percent is None else f" {self.percent} %"
        problem = "" if self.problem is None else f": {self.problem}"
        return f"{self.phase}{percent} for {max(0, round(age.total_seconds()))} s{problem}"


def write(path: Path, state: State) -> None:
    """Replace the state file in one step; raises `OSError`."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps({"schema": 1} | asdict(state), ensure_ascii=False), "utf-8")
    os.replace(draft, path)


def read(path: Path) -> State | None:
    """The state last written; None if there is none or it is not ours."""
    try:
        fields = json.loads(path.read_text("utf-8"))
        del fields["schema"]
        return State(**fields | {"phase": Phase(fields["phase"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
