"""SIGTERM is obeyed from the first instruction on, by a launcher that is process 1 as its image starts it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.launcher.harness import PATIENCE_S, Site

DOCKER = Path(__file__).parents[3] / "docker"
DOCKERFILES = sorted(DOCKER.glob("*/Dockerfile"))
MOMENTS_MS = (0, 5, 10, 20, 40, 60, 90, 130)
_BLOCKED = re.compile(r"^SigBlk:\s*([0-9a-f]+)$", re.MULTILINE)


def entrypoint(dockerfile: Path) -> list[str] | None:
    """The words that the image runs; None where it sets none."""
    found = re.search(r"^ENTRYPOINT (\[.*\])$", dockerfile.read_text(), re.MULTILINE)
    return json.loads(found[1]) if found else None


def is_kept(pid: int) -> bool:
    """Whether SIGTERM would wait for this process to let it in; what unshare itself does before does not count."""
    if os.readlink(f"/proc/{pid}/exe").endswith("unshare"):
        return False
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = _BLOCKED.search(status)
    return bool(blocked and int(blocked[1], 16) & 1 << (signal.SIGTERM - 1))


def inner(unshare: int) -> int:
    """Process 1 of the new namespace, as this one numbers it, once it keeps its signals."""
    children = Path(f"/proc/{unshare}/task/{unshare}/children")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if (found := children.read_text().split()) and is_kept(int(found[0])):
            return int(found[0])
    raise AssertionError("it keeps no signals")


def test_every_worker_starts_so() -> None:
    """One entry point, and each worker's image has it."""
    words = {
        path.parent.name: entrypoint(path) for path in DOCKERFILES if (path.parent / "serve.yaml").exists()
    }
    assert len(words) >= 6
    assert {tuple(found or ()) for found in words.values()} == {
        ("env", "--block-signal=TERM,INT", "python3", "-m", "launcher")
    }


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_a_stop_that_comes_before_python_has_begun_is_obeyed(site: Site) -> None:
    """However many milliseconds after `env` keeps it: the launcher ends with 0, having started nothing."""
    words = entrypoint(DOCKER / "qwen3-0p6b-cpu" / "Dockerfile")
    assert words is not None
    run = [sys.executable if word == "python3" else word for word in words]
    site.publish()
    with ExitStack() as stack:
        started = []
        for moment in MOMENTS_MS:
            process = stack.enter_context(
                subprocess.Popen(
                    ["unshare", "--pid", "--fork", "--kill-child", *run],
                    env=site.environ() | {"LAUNCHER_STATE_DIR": str(site.root / f"state-{moment}")},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            launcher = inner(process.pid)
            time.sleep(moment / 1000)
            os.kill(launcher, signal.SIGTERM)
            started.append(process)
        ended = [(process.communicate(timeout=PATIENCE_S), process.returncode) for process in started]
    assert [code for _, code in ended] == [0] * len(MOMENTS_MS)
    assert [err for (_, err), _ in ended if err] == []
