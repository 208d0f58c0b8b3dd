"""The state file: what the launcher is doing now. `Progress` writes it; health check and ops port read it.

`LAUNCHER_STATE_DIR/state.json`, replaced atomically at every change:
`{"schema": 1, "slug", "phase", "since" (UTC), "run" (how many began), "seconds" (per phase done), "percent" (weights
loaded) | null, "problem": "one line" | null, "trouble": its kind in a word | null, "usual" (seconds per phase, by
earlier starts), "weights_bytes" | null, "compile_cache_hit" | null, "crashes", "hangs"}`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from launcher.engine.phases import Phase
from launcher.files import document, safe_open
from launcher.files.document import Fields
from launcher.status.logs import timestamp

_MAX_BYTES = 1024 * 1024  # of the file, and of `problem`
_MAX_PROBLEM_BYTES = 64 * 1024  # that are written; JSON may need six bytes for one
_MAX_S = 1e10  # of a phase, in seconds: three centuries
_MOMENT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"


class Trouble(StrEnum):
    """What keeps a worker from serving; each kind has its own remedy (docs/operations.md)."""

    WEIGHTS_MISSING = "weights-missing"
    WEIGHTS_CORRUPT = "weights-corrupt"
    GPUS_BUSY = "gpus-busy"
    CONFIGURATION = "configuration"
    CRASH = "crash"
    HANG = "hang"


@dataclass(frozen=True)
class State:
    """The launcher's state at one moment. `since` is when the phase began, `seconds` how long each earlier phase took.
    `usual` is how long phases took in earlier starts. `crashes` and `hangs` count since the launcher began."""

    slug: str
    phase: Phase
    run: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    percent: int | None = None
    problem: str | None = None
    trouble: Trouble | None = None
    usual: Mapping[str, float] = field(default_factory=dict)
    weights_bytes: int | None = None
    compile_cache_hit: bool | None = None
    crashes: int = 0
    hangs: int = 0
    since: str = field(default_factory=timestamp)

    def age_s(self, now: datetime) -> float:
        """Seconds since the phase began; 0 if the clock was set back."""
        return max(0.0, (now - datetime.fromisoformat(self.since)).total_seconds())

    def describe(self, now: datetime | None = None) -> str:
        """Return phase, percentage, age and problem in one line for a person; the health check prints it."""
        age_s = self.age_s(now or datetime.now(UTC))
        percent = "" if self.percent is None else f" {self.percent} %"
        problem = "" if self.problem is None else f": {self.problem}"
        return f"{self.phase}{percent} for {round(age_s)} s{problem}"


def write(path: Path, state: State) -> None:
    """Replace the state file atomically, so that a reader never sees half of it. Raises `OSError`."""
    problem = None if state.problem is None else _readable(state.problem)
    safe_open.replace(
        path, json.dumps({"schema": 1} | asdict(state) | {"problem": problem}, ensure_ascii=False)
    )


def _readable(problem: str) -> str:
    """Return the problem as `read` takes it: a path or vLLM's last words may have bytes that are no UTF-8, or NUL,
    which are escaped here, or be endless."""
    escaped = problem.replace("\0", "\\x00").encode("utf-8", "backslashreplace")
    return escaped[:_MAX_PROBLEM_BYTES].decode(errors="ignore")


def read(path: Path) -> State | None:
    """Return the state last written, for health check and ops port; None if there is no file or it is broken."""
    try:
        return _parsed(Fields.of(document.parse(safe_open.read(path, _MAX_BYTES))))
    except (OSError, ValueError):
        return None


def _parsed(said: Fields) -> State:
    """Return the state in the parsed JSON. Raises `ValueError` for anything else, another schema included."""
    said.whole("schema", 1, 1)
    trouble = said.text_or_none("trouble")
    return State(
        slug=said.text("slug"),
        phase=Phase(said.text("phase")),
        run=said.whole("run"),
        seconds=_seconds(said.section("seconds")),
        percent=said.whole_or_none("percent"),
        problem=said.text_or_none("problem", most=_MAX_BYTES),
        trouble=Trouble(trouble) if trouble else None,
        usual=_seconds(said.section("usual")),
        weights_bytes=said.whole_or_none("weights_bytes"),
        compile_cache_hit=said.flag_or_none("compile_cache_hit"),
        crashes=said.whole("crashes"),
        hangs=said.whole("hangs"),
        since=_moment(said.text("since", _MOMENT)),
    )


def _moment(text: str) -> str:
    """Return the timestamp itself if it is a date that exists, so that `age_s` can rely on it. Raises `ValueError`."""
    datetime.fromisoformat(text)
    return text


def _seconds(phases: Fields) -> dict[str, float]:
    """Return the seconds of each phase. Raises `ValueError` for an unknown phase or no number."""
    return {Phase(name).value: phases.number(name, _MAX_S) for name in phases.values}
