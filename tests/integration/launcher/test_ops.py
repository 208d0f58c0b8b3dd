"""The ops port of a running launcher: how a start goes, what it usually takes, what is in its way."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.launcher.harness import PATIENCE_S, Site, Worker, free_port

Start = Callable[..., Worker]


@pytest.fixture
def ops(site: Site) -> int:
    """The site's ops port."""
    port = free_port()
    site.settings["LAUNCHER_OPS_PORT"] = str(port)
    return port


def get(port: int, target: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{target}", timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def state(port: int) -> Any:
    return json.loads(get(port, "/state"))


def test_a_start_and_the_next_one_with_an_estimate(site: Site, start: Start, ops: int) -> None:
    """The first start knows nothing; the second knows what the first one took, phase by phase."""
    site.publish()
    first = start()
    first.wait_event("phase", phase="ready")
    assert state(ops)["phase"] == "ready"
    usual = state(ops)["usual"]
    assert {"starting", "loading", "warm-up"} <= usual.keys()
    assert 'launcher_phase{phase="ready"} 1' in get(ops, "/metrics")
    assert 'launcher_disk_free_bytes{disk="weights"}' in get(ops, "/metrics")
    first.stop()
    site.options = ("--loads-s", "30")
    second = start()
    second.wait_event("phase", phase="starting")
    assert 0 < state(ops)["left_s"] <= sum(usual.values()) + 1
    second.stop()


def test_what_is_in_the_way(site: Site, start: Start, ops: int) -> None:
    worker = start()
    worker.wait_event("weights-not-ready")
    assert state(ops)["trouble"] == "weights-missing"
    assert 'launcher_trouble{trouble="weights-missing"} 1' in get(ops, "/metrics")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(ops, "/other")


def test_a_port_that_is_taken_stops_no_worker(site: Site, start: Start, ops: int) -> None:
    """It is said once, and the worker serves without."""
    site.publish()
    with socket.create_server(("", ops)):
        worker = start()
        assert worker.wait_event("no-ops-port")["port"] == ops
        worker.wait_event("phase", phase="ready")
