"""What happens when vLLM ends, and when the launcher is told to."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.engine import admission
from tests.integration.launcher.harness import PATIENCE_S, SLUG, Site, Worker

Start = Callable[..., Worker]


def _ends(pid: int) -> bool:
    """Whether this process ends within the patience of a test."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], PATIENCE_S)[0])
    finally:
        os.close(watched)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_passed_on_and_ends_with_0(site: Site, start: Start, number: int) -> None:
    """vLLM gets the signal and ends within its grace."""
    site.publish()
    worker = start()
    worker.wait_event("phase", phase="ready")
    assert worker.stop(number) == 0
    assert [event["signal"] for event in worker.events("stopping")] == [signal.Signals(number).name]
    assert [event["exit_code"] for event in worker.events("stopped")] == [
        0 if number == signal.SIGTERM else -2
    ]
    assert worker.events("killed") == []
    assert worker.events("crash") == []


def test_a_stop_during_the_start_up_is_passed_on(site: Site, start: Start) -> None:
    """A worker need not be ready to be stopped."""
    site.publish()
    worker = start()
    worker.wait_event("phase", phase="loading")
    assert worker.stop() == 0
    assert len(worker.events("stopped")) == 1


def test_requests_are_refused_before_the_stop_is_passed_on(site: Site, start: Start) -> None:
    """Requests are refused by the time the signal reaches vLLM; a launcher that starts again admits them."""
    site.publish()
    worker = start()
    worker.wait_event("phase", phase="ready")
    assert not _is_closed(site)
    assert worker.stop() == 0
    assert "closed: True" in worker.out
    start().wait_event("phase", phase="ready")
    assert not _is_closed(site)


def _is_closed(site: Site) -> bool:
    return admission.closed_file(site.root / "state").exists()


def test_a_vllm_that_does_not_end_is_killed_with_its_group(site: Site, start: Start) -> None:
    """After the grace the whole group gets SIGKILL and the exit code says so."""
    site.publish()
    site.options = ("--ignore-sigterm", "--rank")
    site.settings["LAUNCHER_STOP_GRACE_S"] = "0.3"
    worker = start()
    rank = int(worker.wait_error_line("rank: "))
    worker.wait_event("phase", phase="ready")
    began = time.monotonic()
    assert worker.stop() == 137
    assert time.monotonic() - began >= 0.3
    assert worker.events("killed")[0]["grace_s"] == 0.3
    assert _ends(rank)


@pytest.mark.parametrize("published", [False, True], ids=["waiting for weights", "backing off"])
def test_a_stop_without_vllm_ends_at_once(site: Site, start: Start, published: bool) -> None:
    """Nothing is waited for: neither the weights nor the back-off of ten seconds."""
    if published:
        site.publish()
    site.options = ("--fail", "abort")
    worker = start()
    worker.wait_event("crash" if published else "weights-not-ready")
    began = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - began < 2


def test_crashes_are_tried_again_with_a_growing_pause(site: Site, start: Start) -> None:
    """Each crash is one line with exit code, run, cause and the next try."""
    site.publish()
    site.options = ("--fail", "abort")
    site.settings["LAUNCHER_BACKOFF_S"] = "0.1"
    worker = start()
    crashes = [worker.wait_event("crash") for _ in range(3)]
    assert [crash["retry_in_s"] for crash in crashes] == [0.1, 0.2, 0.4]
    assert [crash["run"] for crash in crashes] == [1, 2, 3]
    assert {crash["exit_code"] for crash in crashes} == {1}
    assert {crash["cause"] for crash in crashes} == {
        "RuntimeError: CUDA error: an illegal memory access was encountered"
    }


def test_a_kill_for_want_of_memory_is_a_crash(site: Site, start: Start) -> None:
    """The signal is named in place of an exit code."""
    site.publish()
    site.options = ("--fail", "oom")
    crash = start().wait_event("crash")
    assert crash["signal"] == "SIGKILL"
    assert "exit_code" not in crash


def test_a_worker_recovers_from_one_crash(site: Site, start: Start) -> None:
    """The second run is checked, started and ready like the first."""
    site.publish()
    site.options = ("--fail", "once", "--marker", str(site.root / "failed"))
    site.settings["LAUNCHER_BACKOFF_S"] = "0.1"
    worker = start()
    worker.wait_event("crash", run=1)
    worker.wait_event("phase", phase="ready")
    assert site.health().returncode == 0


def test_a_crash_while_serving_leaves_no_rank_behind(site: Site, start: Start) -> None:
    """What vLLM left in its group would hold the GPU's memory: it is killed before the next run."""
    site.publish()
    site.options = ("--rank",)
    worker = start()
    rank = int(worker.wait_error_line("rank: "))
    worker.wait_event("phase", phase="ready")
    with contextlib.suppress(http.client.RemoteDisconnected, ConnectionResetError):
        site.get("/crash")
    crash = worker.wait_event("crash")
    assert (crash["exit_code"], crash["retry_in_s"]) == (1, 10.0)
    assert _ends(rank)


@pytest.mark.parametrize(
    ("options", "words", "exit_code", "cause"),
    [
        ((), ("--enable-reasoning",), 2, "vllm serve: error: unrecognized arguments: --enable-reasoning"),
        (("--fail", "validation"), (), 1, "Value error, max_model_len (99999999) is too large"),
    ],
    ids=["unknown flag", "refused value"],
)
def test_a_configuration_error_is_said_once_and_not_tried_again(
    site: Site, start: Start, options: tuple[str, ...], words: tuple[str, ...], exit_code: int, cause: str
) -> None:
    """vLLM's own words and a remedy in one line; then the worker waits, unhealthy, until it is stopped."""
    site.publish()
    site.options = options
    site.settings["LAUNCHER_BACKOFF_S"] = "0.01"
    worker = start(words=words)
    said = worker.wait_event("configuration-error")
    assert said["exit_code"] == exit_code
    assert cause in said["problem"]
    assert SLUG in said["mend"]
    unhealthy = site.health()
    assert unhealthy.returncode == 1
    assert ": misconfigured for " in unhealthy.stdout
    assert cause in unhealthy.stdout
    assert worker.stop() == 0
    assert len(worker.events("configuration-error")) == 1
    assert [line for line in worker.out if line.startswith("words: ")][1:] == []
    assert worker.events("crash") == []


def _processes(site: Site) -> dict[int, tuple[int, str]]:
    return {pid: (parent, state) for pid, parent, state in site.get("/processes")}


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_process_1_reaps_orphans_and_obeys_sigterm(site: Site, start: Start) -> None:
    """An orphan that ends leaves no zombie, though vLLM never waits for it."""
    site.publish()
    worker = start(prefix=("unshare", "--pid", "--fork", "--mount-proc"))
    worker.wait_event("phase", phase="ready")
    orphan = site.get("/orphan")
    deadline = time.monotonic() + PATIENCE_S
    while orphan in (found := _processes(site)) and time.monotonic() < deadline:
        assert found[orphan][0] == 1, "the orphan was not adopted by process 1"
    assert orphan not in found
    assert "Z" not in {state for _, state in found.values()}
    children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text()
    os.kill(int(children), signal.SIGTERM)
    assert worker.wait() == 0
    assert len(worker.events("stopped")) == 1
