"""Before a worker is ready its vLLM is warmed, by its launcher alone; what fails of that keeps nobody from serving."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from typing import Any

import pytest

from launcher.warming import Kind, plan
from tests.integration.launcher.harness import PATIENCE_S, Site, Worker

Start = Callable[..., Worker]


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
    steps = plan((Kind.TEXT, Kind.TOOLS))
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
    """The worker is ready when its time for that is up, and the log says what was not done."""
    site.options = ("--chats", "hang")
    site.settings["LAUNCHER_WARM_S"] = "0.5"
    worker = start()
    warmed = worker.wait_event("warmed")
    assert warmed["done"] == []
    assert warmed["problems"][0] == "short prompt: no answer within 0.5 s"
    assert warmed["problems"][1].startswith("no time was left for: long prompt, 1 at once, ")
    worker.wait_event("phase", phase="ready")
    assert site.get("/health") is None


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
