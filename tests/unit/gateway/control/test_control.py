"""How the control side words what the framework refuses, and what it shows of a worker."""

import pytest

from gateway.control.api import describe_worker, target, to_gateway_error
from gateway.fleet.workers import Worker


@pytest.mark.parametrize(("status", "expected"), [(404, 404), (405, 405), (400, 400), (418, 400)])
def test_the_frameworks_refusals_become_ours(status: int, expected: int) -> None:
    """404 and 405 keep their status and say method and path; all else is the request's fault."""
    error = to_gateway_error("PUT", "/v1/x", status, "GET, HEAD")
    assert (error.status, error.code) == (expected, "invalid_request")
    assert ("/v1/x" in error.message) == (status in (404, 405))
    assert ((b"allow", b"GET, HEAD") in error.headers()) == (status == 405)


def test_a_worker_is_shown_with_its_reason() -> None:
    """Address, state and why it is in that state, load, share and failures."""
    assert describe_worker(Worker("a", "10.0.0.1", 8000, waiting=3.0, kv_use=0.5, share=0.123)) == {
        "address": "10.0.0.1:8000", "state": "starting", "reason": "not probed yet", "in_flight": 0, "waiting": 3.0,
        "kv_use": 0.5, "share": 0.12, "start": None, "failed_probes": 0,
        "failed_requests": 0,
    }  # fmt: skip


def test_a_target_is_what_prometheus_reads() -> None:
    """One group of Prometheus' HTTP service discovery."""
    assert target("a", "10.0.0.1:8000") == {"targets": ["10.0.0.1:8000"], "labels": {"slug": "a"}}
