"""Blocking work runs in a thread: its outcome comes back, and a stop does not wait for it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from launcher.process import background
from launcher.process.init import CancelledError, Init


def test_its_outcome_comes_back() -> None:
    with Init() as init:
        assert background.run(init, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            background.run(init, lambda: 1 // 0)


def test_a_stop_leaves_it_behind() -> None:
    """As a file system that does not answer would be."""
    never = threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        never.wait()

    with Init() as init, pytest.raises(CancelledError):
        background.run(init, work)
    never.set()


def test_it_is_done_here_where_no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Init() as init:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert background.run(init, lambda: 7) == 7
