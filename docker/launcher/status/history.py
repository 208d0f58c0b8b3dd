"""Keeps how long earlier starts of this worker took in each phase, to estimate how long the current one will take. The
file is a JSON list of the last starts that became ready, `[{"loading": 41.2, ...}, ...]` in seconds, the latest last.
It lies beside the engine's compile caches, since those decide how long the next start takes."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.engine.phases import Phase
from launcher.files import document, safe_open
from launcher.files.document import Fields

KEPT = 5  # starts in the file
# the phases that are kept: they are likely to take as long as last time, unlike a wait for weights or GPUs
COUNTED = (Phase.STARTING, Phase.LOADING, Phase.COMPILING, Phase.GRAPHS, Phase.VLLM_WARM, Phase.WARMING)
MIN_PERCENT = 10  # of the weights loaded, to estimate by: the first file says little about the others
Start = Mapping[str, float]  # seconds by phase
_MAX_BYTES = 65536  # of the file; five starts have about 1 KB
_MAX_S = 1e7  # that a phase may have taken, in seconds; more is a broken file


def read(path: Path) -> tuple[Start, ...]:
    """Return the starts in the file; none if there is no file. Raises `OSError`, or `ValueError` for a broken one."""
    try:
        content = safe_open.read(path, _MAX_BYTES)
    except FileNotFoundError:
        return ()
    starts = Fields({"starts": document.parse(content)}).sections("starts", KEPT)
    return tuple({Phase(name).value: start.number(name, _MAX_S) for name in start.values} for start in starts)


def add(path: Path, seconds: Start) -> tuple[Start, ...]:
    """Add a start that became ready to the file, or replace a broken file. Return the starts kept. Raises `OSError`."""
    try:
        before = read(path)
    except (OSError, ValueError):
        before = ()
    counted = {phase.value: seconds[phase] for phase in COUNTED if phase in seconds}
    kept = (*before, counted)[-KEPT:]
    safe_open.replace(path, json.dumps(kept))
    return kept


def usual(starts: Sequence[Start]) -> dict[str, float]:
    """Return the median seconds of each phase; a phase missing in a start counts 0 there. Pure."""
    return {
        phase.value: round(statistics.median(start.get(phase, 0.0) for start in starts), 3)
        for phase in COUNTED
        if any(phase in start for start in starts)
    }


def left_s(usual: Start, phase: Phase, spent_s: float, percent: int | None = None) -> float | None:
    """Estimate the seconds until ready; None if no start-up is under way or none was kept. Pure. `usual` is from
    `usual()`, `spent_s` the time in `phase` so far. vLLM's `percent` of loaded weights, from 10 on, takes precedence
    over how long loading usually takes."""
    if not usual or phase not in COUNTED:
        return None
    later = sum(usual.get(name, 0.0) for name in COUNTED[COUNTED.index(phase) + 1 :])
    by_percent = spent_s * (100 - percent) / percent if percent and percent >= MIN_PERCENT else None
    here = usual.get(phase, 0.0) - spent_s if by_percent is None else by_percent
    return later + max(0.0, here)
