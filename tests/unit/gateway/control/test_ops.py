"""What the ops port shows of a worker."""

from gateway.control.ops import describe_worker, target
from gateway.fleet.workers import Worker


def test_a_worker_is_shown_with_its_reason() -> None:
    """Address, state and why it is in that state, load, share and failures."""
    assert describe_worker(Worker("a", "10.0.0.1", 8000, waiting=3.0, kv_use=0.5, slow_start_factor=0.123)) == {
        "address": "10.0.0.1:8000", "state": "starting", "reason": "not probed yet", "in_flight": 0, "waiting": 3.0,
        "kv_use": 0.5, "share": 0.12, "start": None, "failed_probes": 0,
        "failed_requests": 0,
    }  # fmt: skip


def test_a_target_is_what_prometheus_reads() -> None:
    """One group of Prometheus' HTTP service discovery."""
    assert target("a", "10.0.0.1:8000") == {"targets": ["10.0.0.1:8000"], "labels": {"slug": "a"}}
