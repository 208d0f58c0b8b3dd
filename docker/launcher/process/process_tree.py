"""The processes below another one, whatever group or session they have made for themselves."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_MOST_ROUNDS = 50  # so that processes which start others faster than they are found do not keep the launcher


class Relative(NamedTuple):
    """A process: its id, which may be another's later, and its start in clock ticks, which tells them apart."""

    pid: int
    started: int


class _Listed(NamedTuple):
    process: Relative
    parent: int
    has_ended: bool


def below(pid: int, but: Collection[Relative] = ()) -> list[Relative]:
    """Children, their children and so on, as /proc has them now; those that have ended are left out.

    So are the processes in `but`, with whoever is below them. Raises OSError where /proc cannot be read.
    """
    children = defaultdict(list)
    for one in _listed():
        if one.process not in but:
            children[one.parent].append(one)
    found = children[pid].copy()
    for one in found:  # grows while it is read
        found += children[one.process.pid]
    return [one.process for one in found if not one.has_ended]


def kill_below(pid: int, but: Collection[Relative] = ()) -> None:
    """Send SIGKILL to everybody that `below` finds, and look again until it finds nobody new.

    A process may start another one after it was listed and before it is killed. Raises OSError where /proc cannot be
    read.
    """
    killed: set[Relative] = set()
    for _ in range(_MOST_ROUNDS):
        new = set(below(pid, but)) - killed
        if not new:
            break
        for one in new:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(one.pid, signal.SIGKILL)
        killed |= new


def _listed() -> Iterator[_Listed]:
    """Every process. One that has ended is among them: its child may have been read before, with it as the parent."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path("/proc", name, "stat").read_text("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # ended meanwhile, or another user's
            continue
        fields = stat.rpartition(")")[2].split()
        state, parent, started = fields[0], fields[1], fields[19]
        yield _Listed(Relative(int(name), int(started)), int(parent), state == "Z")
