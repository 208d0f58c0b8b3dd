"""Whoever is below a process is found, wherever it has gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from launcher import kin

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
    """A grandchild in a session of its own, and its parent; not the process itself, nor others."""
    top = subprocess.Popen([sys.executable, "-c", _TREE], stdout=subprocess.PIPE, text=True)
    assert top.stdout is not None
    last, middle = map(int, top.stdout.readline().split())
    try:
        assert sorted(kin.below(top.pid)) == sorted([middle, last])
    finally:
        for pid in (last, middle, top.pid):
            os.kill(pid, signal.SIGKILL)
        top.communicate()


def test_who_has_ended_is_left_out() -> None:
    """A zombie needs no signal."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.pid not in kin.below(os.getpid())
    child.wait()
