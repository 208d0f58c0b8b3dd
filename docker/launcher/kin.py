"""The processes below another one, whatever group or session they have made for themselves."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path


def below(pid: int) -> list[int]:
    """Children, their children and so on, as /proc has them now; those that have ended are left out."""
    children = defaultdict(list)
    for process, parent in _parents().items():
        children[parent].append(process)
    found = [pid]
    for one in found:  # grows while it is read
        found += children[one]
    return found[1:]


def _parents() -> dict[int, int]:
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
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state != "Z":
            parents[int(name)] = int(parent)
    return parents
