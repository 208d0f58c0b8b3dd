"""Before a worker is ready its vLLM is warmed, by its launcher alone; what fails of that keeps nobody from serving."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest

from launcher.engine.warming import plan
from launcher.settings import Capability
from tests.integration.launcher.harness import PATIENCE_S, Site, Worker

Start = Callable[..., Worker]
IMPATIENT = {"LAUNCHER_WARM_S": "0.5", "LAUNCHER_HANG_AFTER_S": "2", "LAUNCHER_WARMS": "tools"}


@pytest.fixture
def site(site: Site) -> Site:
    """Weights in order; a model for text and tools, and a launcher that warms it."""
    site.publish()
    site.settings |= {
        "LAUNCHER_WARM_S": str(PATIENCE_S),
        "LAUNCHER_WARMS": "text tools",
        "LAUNCHER_STOP_GRACE_S": "0.4",
        "LAUNCHER_BACKOFF_S": "0.1",
    }
    return site


def chats(site: Site) -> Any:
    return site.get("/chats")


def test_a_worker_is_warmed_before_it_is_ready(site: Site, start: Start) -> None:
    """Every step, as many at once as it says; the phase is told, logged and part of what a start takes."""
    worker = start()
    warmed = worker.wait_event("warmed")
    ready = worker.wait_event("phase", phase="ready")
    steps = plan((Capability.TEXT, Capability.TOOLS))
    assert warmed["done"] == [step.name for step in steps]
    assert "problems" not in warmed
    assert [event["phase"] for event in worker.events("phase")][-2:] == ["warming", "ready"]
    assert (ready["previous"], ready["previous_s"] > 0) == ("warming", True)
    assert len(chats(site)["asked"]) == sum(len(step.requests) for step in steps)
    assert chats(site)["most"] > 1
    assert site.health().returncode == 0


def test_nobody_else_is_let_in_meanwhile(site: Site, start: Start) -> None:
    """To its gateway and to `docker ps` the worker is not up; a stop is obeyed at once."""
    site.options = ("--chats", "hang")
    worker = start()
    worker.wait_event("phase", phase="warming")
    with pytest.raises(urllib.error.HTTPError, match="503"):
        site.get("/health")
    unhealthy = site.health()
    assert unhealthy.returncode == 1
    assert unhealthy.stdout.startswith("unhealthy (/health answers 503): warming for ")
    assert worker.stop() == 0
    assert worker.events("not-warmed") == []


def test_what_takes_too_long_is_broken_off(site: Site, start: Start) -> None:
    """While vLLM makes tokens it is ready when its time for that is up, and the log says what was not done."""
    site.options = ("--chats", "hang", "--engine")
    site.settings |= {"LAUNCHER_WARM_S": "0.5", "LAUNCHER_HANG_AFTER_S": str(10 * PATIENCE_S)}
    worker = start()
    worker.wait_event("phase", phase="warming")
    site.get("/run")
    warmed = worker.wait_event("warmed")
    assert warmed["done"] == []
    assert re.fullmatch(r"short prompt: no answer within [\d.]+ s", warmed["problems"][0])
    assert warmed["problems"][1].startswith("no time was left for: long prompt, 1 at once, ")
    worker.wait_event("phase", phase="ready")
    assert site.get("/health") is None


def test_a_slow_host_has_time_for_its_first_answer(site: Site, start: Start) -> None:
    """Its numbers change with the end of its first step only, long after the time for warming."""
    site.options = ("--chats", "slow")
    site.settings |= IMPATIENT | {"LAUNCHER_HANG_AFTER_S": str(10 * PATIENCE_S)}
    worker = start()
    warmed = worker.wait_event("warmed")
    assert (warmed["done"], warmed["problems"]) == (["tool call"], ["no time was left for: named tool call"])
    worker.wait_event("phase", phase="ready")
    assert worker.events("hang") == worker.events("not-warmed") == []


@pytest.mark.parametrize("numbers", [("--blind",), ()], ids=["says nothing of itself", "is not to be judged"])
def test_without_numbers_nothing_is_a_standstill(site: Site, start: Start, numbers: tuple[str, ...]) -> None:
    """Then the time for warming alone ends it."""
    site.options = ("--chats", "hang", *numbers)
    site.settings |= {"LAUNCHER_WARM_S": "0.5", "LAUNCHER_HANG_AFTER_S": "0.5" if numbers else "0"}
    worker = start()
    worker.wait_event("phase", phase="ready")
    assert worker.events("hang") == []


def test_a_vllm_that_answers_nothing_is_ended(site: Site, start: Start) -> None:
    """A standstill before anybody was let in: one line, the back-off, and the next run has to show that it answers."""
    site.options = ("--chats", "hang-once", "--marker", str(site.root / "hung"))
    site.settings |= IMPATIENT
    worker = start()
    hang = worker.wait_event("hang")
    assert re.fullmatch(
        r"the launcher's own requests \(tool call\) are not answered; generation tokens, prompt tokens, "
        r"KV use and finished requests have not changed for \d+ s",
        hang["problem"],
    )
    crash = worker.wait_event("crash")
    assert (crash["verdict"], crash["cause"], crash["retry_in_s"]) == ("hang", hang["problem"], 0.1)
    worker.wait_event("phase", phase="ready")
    first, second = worker.events("warmed")
    assert (first["done"], second["done"][0]) == ([], "tool call")
    assert [event["phase"] for event in worker.events("phase")].count("ready") == 1
    assert worker.events("not-warmed") == []


def test_one_that_stands_still_later_is_ended_too(site: Site, start: Start) -> None:
    """What it was asked for may be the cause: it is not asked again."""
    site.options = ("--chats", "hang-second")
    site.settings |= IMPATIENT
    worker = start()
    assert "(named tool call)" in worker.wait_event("hang")["problem"]
    worker.wait_event("not-warmed")
    worker.wait_event("phase", phase="ready")


def test_its_own_requests_arm_no_watch(site: Site, start: Start) -> None:
    """All of warming has finished by vLLM's numbers: a client's first request may compile for long all the same."""
    looks, limit_s = 30, 0.5  # ten looks are one limit
    site.options = ("--engine",)
    site.settings |= {"LAUNCHER_HANG_AFTER_S": str(limit_s), "LAUNCHER_WARMS": "tools"}
    worker = start()
    engine = int(worker.wait_error_line("engine: "))
    worker.wait_event("phase", phase="ready")
    site.get("/run")
    os.kill(engine, signal.SIGSTOP)
    wait_for_looks(site, looks)
    assert (worker.events("hang"), site.get("/asked")) == ([], 0)
    site.get("/finish")
    site.get("/run")
    assert "1 requests running" in worker.wait_event("hang")["problem"]


def wait_for_looks(site: Site, count: int) -> None:
    wanted, deadline = site.get("/looks") + count, time.monotonic() + PATIENCE_S
    while site.get("/looks") < wanted:
        assert time.monotonic() < deadline, "the launcher does not look"
        time.sleep(0.05)


def test_what_vllm_refuses_is_told(site: Site, start: Start) -> None:
    """In its own words; the worker serves what it can."""
    site.options = ("--chats", "refuse")
    worker = start()
    warmed = worker.wait_event("warmed")
    assert warmed["problems"][0] == (
        'short prompt: 400 {"error": {"message": "This model has no chat template"}}'
    )
    worker.wait_event("phase", phase="ready")


def test_a_vllm_that_dies_of_it_is_not_warmed_again(site: Site, start: Start) -> None:
    """The run is a crash; the next one serves, for who knows whether anybody asks for what killed it."""
    site.options = ("--chats", "die")
    worker = start()
    worker.wait_event("not-warmed")
    assert worker.wait_event("crash")["retry_in_s"] == 0.1
    worker.wait_event("phase", phase="ready")
    assert site.get("/health") is None
    assert len(worker.events("warmed")) == 1
