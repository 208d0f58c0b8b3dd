"""How long earlier starts of this worker took, phase by phase: what an estimate of the present one is made of.

A JSON list of the last starts that became ready, `[{"loading": 41.2, ...}, ...]` in seconds, the latest last. It lies
beside the engine's compile caches, since those decide how long the next start takes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.engine.phases import Phase
from launcher.files import document, safe_open
from launcher.files.document import Fields

KEPT = 5
COUNTED = (
    Phase.STARTING,
    Phase.LOADING,
    Phase.COMPILING,
    Phase.GRAPHS,
    Phase.WARM_UP,
    Phase.WARMING,
)
"""Phases that take as long as the last time; how long weights or GPUs were waited for says nothing of it."""
LEAST_PERCENT = 10
"""Of the weights: a first file that the disk had not ready says little of the others."""

Start = Mapping[str, float]
_LARGEST_BYTES = 65536
_LONGEST_S = 1e7


def read(path: Path) -> tuple[Start, ...]:
    """The starts kept in the file, none if there is no such file.

    Raises `OSError` or `ValueError` if it is not ours.
    """
    try:
        content = safe_open.read(path, _LARGEST_BYTES)
    except FileNotFoundError:
        return ()
    starts = Fields({"starts": document.parse(content)}).sections("starts", KEPT)
    return tuple(
        {Phase(name).value: start.number(name, _LONGEST_S) for name in start.values} for start in starts
    )


def add(path: Path, seconds: Start) -> tuple[Start, ...]:
    """Keep one more start, and no more than the last `KEPT`, which are returned; raises `OSError`.

    A file that is not ours becomes ours.
    """
    try:
        before = read(path)
    except (OSError, ValueError):
        before = ()
    counted = {phase.value: seconds[phase] for phase in COUNTED if phase in seconds}
    kept = (*before, counted)[-KEPT:]
    safe_open.replace(path, json.dumps(kept))
    return kept


def usual(starts: Sequence[Start]) -> dict[str, float]:
    """Seconds that each phase took as a rule: the median over the starts, in which a phase may be missing."""
    return {
        phase.value: round(statistics.median(start.get(phase, 0.0) for start in starts), 3)
        for phase in COUNTED
        if any(phase in start for start in starts)
    }


def left_s(usual: Start, phase: Phase, spent_s: float, percent: int | None = None) -> float | None:
    """Seconds until ready, if the present start goes on as usual; None if none was seen, or it is no start.

    `percent` of the weights, where vLLM tells it, goes before what loading usually takes.
    """
    if not usual or phase not in COUNTED:
        return None
    later = sum(usual.get(name, 0.0) for name in COUNTED[COUNTED.index(phase) + 1 :])
    by_percent = spent_s * (100 - percent) / percent if percent and percent >= LEAST_PERCENT else None
    here = usual.get(phase, 0.0) - spent_s if by_percent is None else by_percent
    return later + max(0.0, here)
