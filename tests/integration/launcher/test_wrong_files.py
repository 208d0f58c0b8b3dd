"""Advice that is wrong, in ten ways at once: every worker serves, says so in one line each, and prints no traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.launcher.harness import Site, Worker
from tests.wrong_files import CHOSEN, WAYS


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_worker_that_can_serve_serves(tmp_path: Path, stack: ExitStack) -> None:
    """The history of starts is wrong when it begins, its own state while it serves."""
    workers = {name: _started(tmp_path / name.replace(" ", "-"), WAYS[name], stack) for name in CHOSEN}
    for worker in workers.values():
        worker.wait_event("phase", phase="ready")
        assert len(worker.events("history-dropped")) == 1
    for name, worker in workers.items():
        state = worker.site.root / "state" / "state.json"
        state.unlink()
        WAYS[name](state)
        health = worker.site.health()
        assert (health.stdout, health.stderr) == ("healthy: no launcher has written its state\n", "")
        worker.terminate()
    assert [worker.wait() for worker in workers.values()] == [0] * len(workers)
    assert [worker.err for worker in workers.values() if worker.err] == []


def _started(root: Path, way: Callable[[Path], object], stack: ExitStack) -> Worker:
    site = Site(root)
    site.publish()
    site.settings["LAUNCHER_STOP_GRACE_S"] = "0.4"
    way(root / "octet-starts.json")
    worker = Worker(site)
    stack.callback(worker.close)
    return worker
