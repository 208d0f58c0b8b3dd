"""Whoever is below a process is found and killed, wherever it has gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import pytest

from launcher.process import process_tree
from launcher.process.process_tree import Descendant

DOCKER = Path(__file__).resolve().parents[4] / "docker"
_TREE = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), os.getppid(), flush=True)
    signal.pause()
signal.pause()
"""

_FORKER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # it gets the orphans, as the launcher does
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    while sys.stdin.readline():
        if os.fork() == 0:
            os.setsid()
            print(os.getpid(), flush=True)
            signal.pause()
    signal.pause()
signal.pause()
"""
_BLIND = """
import os, resource
from launcher.process import process_tree
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    process_tree.descendants(os.getpid())
except OSError as error:
    print(error.strerror)
"""


def test_children_of_children_are_found_in_any_session() -> None:
    """A grandchild in a session of its own, and its parent; not the process itself, nor others.

    Who is to be left out is, with those below; a process that has its number and began at another time is not.
    """
    top = subprocess.Popen([sys.executable, "-c", _TREE], stdout=subprocess.PIPE, text=True)
    assert top.stdout is not None
    last, middle = map(int, top.stdout.readline().split())
    try:
        found = process_tree.descendants(top.pid)
        assert sorted(one.pid for one in found) == sorted([middle, last])
        assert process_tree.descendants(top.pid, found) == []
        assert process_tree.descendants(top.pid, [one for one in found if one.pid == middle]) == []
        again = [one._replace(started=one.started + 1) for one in found]
        assert process_tree.descendants(top.pid, again) == found
    finally:
        for pid in (last, middle, top.pid):
            os.kill(pid, signal.SIGKILL)
        top.communicate()


def test_who_has_ended_is_left_out() -> None:
    """A zombie needs no signal."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.pid not in [one.pid for one in process_tree.descendants(os.getpid())]
    child.wait()


def test_who_is_started_between_the_look_and_the_kill_is_killed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is about to be killed has just started one more, in a session of its own."""
    top = subprocess.Popen(
        [sys.executable, "-c", _FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert top.stdin is not None
    assert top.stdout is not None
    pids, look = [top.pid, int(top.stdout.readline())], process_tree.descendants

    def look_and_wait(pid: int, excluding: Collection[Descendant]) -> list[Descendant]:
        found = look(pid, excluding)
        if len(pids) == 2:
            print(file=top.stdin, flush=True)
            assert top.stdout is not None
            pids.append(int(top.stdout.readline()))
        return found

    monkeypatch.setattr(process_tree, "descendants", look_and_wait)
    try:
        process_tree.kill_descendants(top.pid)
        top.kill()
        top.communicate(timeout=30)  # until nobody has its output any more
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        top.communicate()


def test_who_cannot_look_does_not_find_nobody() -> None:
    """No descriptor is left to read /proc with."""
    done = subprocess.run(
        [sys.executable, "-c", _BLIND], env={"PYTHONPATH": str(DOCKER)}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("Too many open files\n", "")
