"""Whoever is below a process is found, wherever it has gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from launcher.process import process_tree

_TREE = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), os.getppid(), flush=True)
    signal.pause()
signal.pause()
"""


def test_children_of_children_are_found_in_any_session() -> None:
    """A grandchild in a session of its own, and its parent; not the process itself, nor others.

    Who is to be left out is, with those below; a process that has its number and began at another time is not.
    """
    top = subprocess.Popen([sys.executable, "-c", _TREE], stdout=subprocess.PIPE, text=True)
    assert top.stdout is not None
    last, middle = map(int, top.stdout.readline().split())
    try:
        found = process_tree.below(top.pid)
        assert sorted(one.pid for one in found) == sorted([middle, last])
        assert process_tree.below(top.pid, found) == []
        assert process_tree.below(top.pid, [one for one in found if one.pid == middle]) == []
        again = [one._replace(started=one.started + 1) for one in found]
        assert process_tree.below(top.pid, again) == found
    finally:
        for pid in (last, middle, top.pid):
            os.kill(pid, signal.SIGKILL)
        top.communicate()


def test_who_has_ended_is_left_out() -> None:
    """A zombie needs no signal."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.pid not in [one.pid for one in process_tree.below(os.getpid())]
    child.wait()
