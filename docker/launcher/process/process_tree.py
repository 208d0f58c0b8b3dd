"""The processes below another one, whatever group or session they have made for themselves."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple


class Relative(NamedTuple):
    """A process: its id, which may be another's later, and its start in clock ticks, which tells them apart."""

    pid: int
    started: int


def below(pid: int, but: Collection[Relative] = ()) -> list[Relative]:
    """Children, their children and so on, as /proc has them now; those that have ended are left out.

    So are the processes in `but`, with whoever is below them.
    """
    children = defaultdict(list)
    for process, parent in _parents().items():
        if process not in but:
            children[parent].append(process)
    found = children[pid].copy()
    for one in found:  # grows while it is read
        found += children[one.pid]
    return found


def _parents() -> dict[Relative, int]:
    """The parent of each process that runs; none where no descriptor is left to look with."""
    parents = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return {}
    for name in filter(str.isdigit, names):
        try:
            stat = Path("/proc", name, "stat").read_text("utf-8", "replace")
        except OSError:  # ended meanwhile
            continue
        fields = stat.rpartition(")")[2].split()
        state, parent, started = fields[0], fields[1], fields[19]
        if state != "Z":
            parents[Relative(int(name), int(started))] = int(parent)
    return parents
