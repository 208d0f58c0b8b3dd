"""A vLLM that has stopped moving is ended and started again; one that is only slow, idle or new is left alone."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

import pytest

from tests.integration.launcher.harness import PATIENCE_S, Site, Worker

Start = Callable[..., Worker]
LIMIT_S = 0.5
LOOKS_PER_LIMIT = 10


@pytest.fixture
def engine_site(site: Site) -> Site:
    """A site whose vLLM has an engine, watched by a launcher with little patience."""
    site.publish()
    site.options = ("--engine",)
    site.settings |= {"LAUNCHER_HANG_AFTER_S": str(LIMIT_S), "LAUNCHER_BACKOFF_S": "0.1"}
    return site


def _ready(worker: Worker) -> int:
    """The number of the engine's process once vLLM is ready."""
    worker.wait_event("phase", phase="ready")
    return int(worker.wait_error_line("engine: "))


def _busy_after_one(site: Site) -> None:
    """One request has finished, another runs."""
    for path in ("/run", "/finish", "/run"):
        site.get(path)


def _looked(site: Site, limits: float) -> None:
    """Until the launcher has looked as often as it does within so many limits from now."""
    wanted = site.get("/looks") + limits * LOOKS_PER_LIMIT
    deadline = time.monotonic() + PATIENCE_S
    while site.get("/looks") < wanted:
        assert time.monotonic() < deadline, "the launcher does not look"
        time.sleep(LIMIT_S / LOOKS_PER_LIMIT)


def _wait_gone(pid: int) -> None:
    watched = os.pidfd_open(pid)
    try:
        assert select.select([watched], [], [], PATIENCE_S)[0], "it still runs"
    finally:
        os.close(watched)


def test_a_frozen_engine_is_ended_and_started_again(engine_site: Site, start: Start) -> None:
    """The API server still answers; the launcher says what stands still, ends both, and the next run serves."""
    worker = start()
    engine = _ready(worker)
    _busy_after_one(engine_site)
    _looked(engine_site, 2)
    watched = os.pidfd_open(engine)
    os.kill(engine, signal.SIGSTOP)
    hang = worker.wait_event("hang")
    assert (hang["run"], hang["hang_after_s"]) == (1, LIMIT_S)
    assert hang["problem"].startswith("generation tokens, prompt tokens, KV use and finished requests")
    assert hang["problem"].endswith("with 1 requests running and 0 waiting")
    crash = worker.wait_event("crash")
    assert (crash["verdict"], crash["cause"], crash["retry_in_s"]) == ("hang", hang["problem"], 0.1)
    assert select.select([watched], [], [], PATIENCE_S)[0], "the frozen engine outlived its vLLM"
    os.close(watched)
    again = _ready(worker)
    assert again != engine
    assert engine_site.health().returncode == 0
    assert len(worker.events("hang")) == 1


def test_an_engine_that_freezes_while_it_is_idle_is_found_too(engine_site: Site, start: Start) -> None:
    """No client's request ever shows in its numbers; the launcher's own question stays open."""
    worker = start()
    engine = _ready(worker)
    for path in ("/run", "/finish"):
        engine_site.get(path)
    _looked(engine_site, 1)
    os.kill(engine, signal.SIGSTOP)
    problem = worker.wait_event("hang")["problem"]
    assert problem.endswith("with 0 requests running and 0 waiting but for the launcher's own")
    assert _ready(worker) != engine


def test_a_frozen_api_server_is_ended_too(engine_site: Site, start: Start) -> None:
    """Silence is no progress, and the launcher itself never waits for it."""
    worker = start()
    _ready(worker)
    _busy_after_one(engine_site)
    _looked(engine_site, 1)
    os.kill(worker.children()[0], signal.SIGSTOP)
    hang = worker.wait_event("hang")
    assert hang["problem"].startswith("/metrics has not answered for ")
    assert worker.wait_event("crash")["signal"] == "SIGKILL"
    _ready(worker)


def test_a_silent_vllm_can_be_stopped_at_once(engine_site: Site, start: Start) -> None:
    """A question that is open does not keep the launcher from its own work."""
    engine_site.settings |= {"LAUNCHER_HANG_AFTER_S": "600", "LAUNCHER_STOP_GRACE_S": "0.3"}
    worker = start()
    _ready(worker)
    os.kill(worker.children()[0], signal.SIGSTOP)
    began = time.monotonic()
    assert worker.stop() == 137
    assert time.monotonic() - began < PATIENCE_S / 2
    assert worker.events("hang") == []


@pytest.mark.parametrize(
    ("asked", "frozen"),
    [((), True), (("/run",), True), (("/run", "/finish"), False), (("/run", "/finish", "/run"), False)],
    ids=["nothing asked yet", "first request still runs", "idle", "makes tokens"],
)
def test_others_are_left_alone(engine_site: Site, start: Start, asked: tuple[str, ...], frozen: bool) -> None:
    """For three times the limit: a first request may compile, an idle engine has nothing to do but a token for us."""
    worker = start()
    engine = _ready(worker)
    for path in asked:
        engine_site.get(path)
    if frozen:
        os.kill(engine, signal.SIGSTOP)
    _looked(engine_site, 3)
    assert worker.events("hang") == []
    assert (engine_site.get("/asked") > 1) == (asked == ("/run", "/finish"))
    assert worker.stop() == 0
    assert worker.events("crash") == []


def test_a_long_start_is_no_hang(engine_site: Site, start: Start) -> None:
    """Silence for six times the limit while weights load: one run, unhealthy meanwhile, ready in the end."""
    engine_site.options += ("--loads-s", str(6 * LIMIT_S))
    worker = start()
    worker.wait_event("phase", phase="starting")
    time.sleep(3 * LIMIT_S)
    assert engine_site.health().returncode == 1
    worker.wait_event("phase", phase="ready")
    assert worker.stop() == 0
    assert worker.events("hang") == worker.events("crash") == []


def test_with_0_nobody_looks(engine_site: Site, start: Start) -> None:
    """The watch can be turned off."""
    engine_site.settings["LAUNCHER_HANG_AFTER_S"] = "0"
    worker = start()
    os.kill(_ready(worker), signal.SIGSTOP)
    _busy_after_one(engine_site)
    time.sleep(2 * LIMIT_S)
    assert engine_site.get("/looks") == 0
    assert worker.events("hang") == []
