"""Finds and kills the descendants of a process, whatever group or session they have moved to. Reads /proc."""

import os
import signal
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_MAX_ROUNDS = 50  # a bound for processes that start others faster than they are found


class Descendant(NamedTuple):
    """A process: its id, and its start in clock ticks, which differs if the id is reused later."""

    pid: int
    started: int


class _Listed(NamedTuple):
    """A line of /proc: a process, its parent's id, and whether it has ended but was not reaped yet."""

    process: Descendant
    parent: int
    has_ended: bool


def descendants(pid: int, excluding: Collection[Descendant] = ()) -> list[Descendant]:
    """Return the running children of `pid`, their children and so on, as /proc lists them now. Processes in `excluding`
    and their descendants are left out. Raises OSError if /proc cannot be read. `Init` fills `spared` by it."""
    children = defaultdict(list)
    for one in _listed():
        if one.process not in excluding:
            children[one.parent].append(one)
    found = children[pid].copy()
    for one in found:  # grows during the loop
        found += children[one.process.pid]
    return [one.process for one in found if not one.has_ended]


def kill_descendants(pid: int, excluding: Collection[Descendant] = ()) -> None:
    """Send SIGKILL to all `descendants`, and repeat until there is no new one. (A process may start another one after
    it was listed and before it is killed.) `process` calls it before a start and after an end, so that nothing keeps a
    GPU's memory. Raises OSError if /proc cannot be read."""
    killed: set[Descendant] = set()
    for _ in range(_MAX_ROUNDS):
        new = set(descendants(pid, excluding)) - killed
        if not new:
            break
        for one in new:
            with suppress(ProcessLookupError, PermissionError):  # it has ended, or runs as another user
                os.kill(one.pid, signal.SIGKILL)
        killed |= new


def _listed() -> Iterator[_Listed]:
    """Yield every process in /proc, ended ones included, since their children may still name them as parent."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path("/proc", name, "stat").read_text("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # ended meanwhile, or another user's
            continue
        fields = stat.rpartition(")")[2].split()  # proc(5), from the third on: the name may contain `)`
        state, parent, started = fields[0], fields[1], fields[19]
        yield _Listed(Descendant(int(name), int(started)), int(parent), state == "Z")
