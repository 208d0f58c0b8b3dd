"""Nothing that process 1 meets keeps it from its work, nor from SIGTERM: output, locks, answers and files that wait."""

from __future__ import annotations

import fcntl
import http.client
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.launcher.harness import PATIENCE_S, Site, Worker

Start = Callable[..., Worker]


@pytest.fixture
def site(site: Site) -> Site:
    """Weights in order, and a vLLM that is given little time."""
    site.publish()
    site.settings |= {"LAUNCHER_STOP_GRACE_S": "2", "LAUNCHER_GPU_SLOTS_DIR": str(site.root)}
    return site


def until(condition: Callable[[], bool]) -> None:
    """Wait for it, as long as a test has patience."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@contextmanager
def unread(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher whose standard output and error are pipes that nobody reads."""
    words = [sys.executable, "-m", "launcher"]
    with subprocess.Popen(words, env=site.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as found:
        try:
            yield found
        finally:
            found.kill()
            site_end(site)


def site_end(site: Site) -> None:
    """What a killed launcher has left behind ends too."""
    with suppress(OSError, http.client.HTTPException):
        site.get("/crash")


def answers(site: Site, path: str) -> bool:
    """Whether vLLM answers there."""
    try:
        site.get(path)
    except OSError:
        return False
    return True


def test_output_that_nobody_reads_stops_neither_vllm_nor_the_launcher(site: Site) -> None:
    """vLLM prints 20 MB, which goes on all the while; then the launcher obeys, and what is read at last says so."""
    site.options = ("--flood",)
    with unread(site) as launcher:
        until(lambda: answers(site, "/health"))
        until(lambda: int(site.get("/printed")) > 20_000_000)
        launcher.terminate()
        assert launcher.wait(PATIENCE_S) == 0


def test_a_reader_that_comes_back_is_told_what_it_missed(site: Site) -> None:
    """A line in the place of what was dropped."""
    site.options = ("--flood",)
    with unread(site) as launcher:
        until(lambda: answers(site, "/health"))
        until(lambda: int(site.get("/printed")) > 20_000_000)
        assert launcher.stdout is not None
        lost = next(line for line in launcher.stdout if b'"event": "output-lost"' in line)
        assert b'"bytes": ' in lost
        launcher.terminate()
        for _ in launcher.stdout:
            pass
        assert launcher.wait(PATIENCE_S) == 0


def test_a_reader_that_is_gone_stops_no_worker(site: Site) -> None:
    """Its end of the pipe is closed: what is said is lost, and vLLM serves on."""
    site.options = ("--flood",)
    with unread(site) as launcher:
        assert launcher.stdout is not None
        until(lambda: answers(site, "/health"))
        launcher.stdout.close()
        before = int(site.get("/printed"))
        until(lambda: int(site.get("/printed")) > before + 1_000_000)
        launcher.terminate()
        assert launcher.wait(PATIENCE_S) == 0


def test_an_answer_that_drips_is_none(site: Site, start: Start) -> None:
    """Its whole has a deadline: the worker is not ready, `health` says so in time, and both can be stopped."""
    site.options = ("--drip-health",)
    worker = start()
    worker.wait_event("phase", phase="warm-up")
    unhealthy = site.health()
    assert unhealthy.returncode == 1
    assert unhealthy.stdout.startswith("unhealthy (no answer within 2 s): ")
    assert worker.stop() == 0
    assert [event["phase"] for event in worker.events("phase") if event["phase"] == "ready"] == []


def test_a_turn_that_never_ends_is_named_and_not_waited_for(
    site: Site, start: Start, nvidia_smi: Path
) -> None:
    """A neighbour that keeps turn.lock: said after a moment; the worker starts once it lets go, and stops meanwhile."""
    site.settings["LAUNCHER_GPUS"] = "1"
    with (site.root / "turn.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        stopped = start()
        stopped.wait_event("gpus-busy")  # they share a state folder, so that one begins after the other
        waiting = start()
        said = waiting.wait_event("gpus-busy")
        assert f"{site.root}/turn.lock has been locked by another process for 2 s" in said["problem"]
        began = time.monotonic()
        assert stopped.stop() == 0
        assert time.monotonic() - began < PATIENCE_S / 2
    waiting.wait_event("phase", phase="ready")
    assert len(waiting.events("gpus-busy")) == 1


def test_a_driver_that_never_answers_is_not_waited_for(site: Site, start: Start, nvidia_smi: Path) -> None:
    """nvidia-smi hangs for as long as it likes: SIGTERM ends the launcher at once, and what it started."""
    site.settings["LAUNCHER_GPUS"] = "1"
    nvidia_smi.write_text(f"#!/bin/sh\necho $$ > {site.root}/pid\nexec sleep 600\n")
    worker = start()
    until(lambda: (site.root / "pid").exists() and (site.root / "pid").read_text().endswith("\n"))
    watched = os.pidfd_open(int((site.root / "pid").read_text()))
    assert worker.stop() == 0
    assert select.select([watched], [], [], PATIENCE_S)[0], "it still runs"
    os.close(watched)


@pytest.fixture
def nvidia_smi(site: Site) -> Path:
    """The program, which lists one GPU."""
    program = site.root / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0, GPU-a\n")
    program.chmod(0o755)
    site.settings["PATH"] = f"{site.root}:{os.environ['PATH']}"
    return program


def test_a_ready_file_that_is_a_pipe_is_named_and_not_read(site: Site, start: Start) -> None:
    """Opening it would wait for a writer."""
    ready = next(site.weights.glob("models/*/*/*/READY.json"))
    right = ready.rename(ready.with_name("right"))
    os.mkfifo(ready)
    stopped = start()
    stopped.wait_event("weights-not-ready")  # they share a state folder, so that one begins after the other
    waiting = start()
    said = waiting.wait_event("weights-not-ready")
    assert said["problem"] == f"{ready} cannot be read: it is not a regular file"
    assert stopped.stop() == 0
    right.replace(ready)
    waiting.wait_event("phase", phase="ready")


def test_numbers_without_end_are_no_standstill(site: Site, start: Start) -> None:
    """16 MB of /metrics: vLLM serves, so it is left alone, and the log says that it is not watched."""
    site.options = ("--engine", "--huge-metrics")
    site.settings["LAUNCHER_HANG_AFTER_S"] = "0.5"
    worker = start()
    worker.wait_event("not-watched")
    looks = int(site.get("/looks"))
    until(lambda: int(site.get("/looks")) >= looks + 5)
    assert worker.stop() == 0
    assert worker.events("hang") == []
    assert len(worker.events("not-watched")) == 1
