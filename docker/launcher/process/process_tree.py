"""The descendants of a process, whatever group or session they have moved to."""

import os
import signal
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_MAX_ROUNDS = 50  # processes that start others faster than they are found do not keep the launcher for ever


class Descendant(NamedTuple):
    """A process: its id, which may be reused later, and its start in clock ticks, which tells the two apart."""

    pid: int
    started: int


class _Listed(NamedTuple):
    process: Descendant
    parent: int
    has_ended: bool


def descendants(pid: int, but: Collection[Descendant] = ()) -> list[Descendant]:
    """Children, their children and so on, as /proc lists them now, without those that have ended, and without the
    processes in `but` and their descendants. Raises OSError where /proc cannot be read.
    """
    children = defaultdict(list)
    for one in _listed():
        if one.process not in but:
            children[one.parent].append(one)
    found = children[pid].copy()
    for one in found:  # grows during the loop
        found += children[one.process.pid]
    return [one.process for one in found if not one.has_ended]


def kill_descendants(pid: int, but: Collection[Descendant] = ()) -> None:
    """Send SIGKILL to all `descendants`, and look again until there is no new one.

    A process may start another one after it was listed and before it is killed. Raises OSError where /proc cannot be
    read.
    """
    killed: set[Descendant] = set()
    for _ in range(_MAX_ROUNDS):
        new = set(descendants(pid, but)) - killed
        if not new:
            break
        for one in new:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(one.pid, signal.SIGKILL)
        killed |= new


def _listed() -> Iterator[_Listed]:
    """Every process, ended ones included: a child may have been read before, with such a parent."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path("/proc", name, "stat").read_text("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # ended meanwhile, or another user's
            continue
        fields = stat.rpartition(")")[2].split()
        state, parent, started = fields[0], fields[1], fields[19]
        yield _Listed(Descendant(int(name), int(started)), int(parent), state == "Z")
