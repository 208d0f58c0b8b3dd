"""One log line and the right counts for every request, and nothing in either that a client could make grow."""

from __future__ import annotations

import pytest

from tests.fake_worker import FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, wait_until

FIELDS = {
    "ts", "level", "logger", "event", "id", "sent_id", "key", "route", "model", "slug", "worker", "status", "ending",
    "code", "attempts", "stream", "queue_ms", "ttfb_ms", "duration_ms",
    "prompt_tokens", "completion_tokens", "cached_tokens",
}  # fmt: skip


def test_a_request_is_one_log_line(gateway: Gateway, worker: FakeWorker) -> None:
    """The log line of a stream says which way it went, how long it took, and how it ended."""
    answer = gateway.chat("alpha-chat", "sse", chunks=3, delay_s=0.02)
    line = gateway.logged(answer)
    told = {name: line[name] for name in FIELDS - {"ts", "id", "sent_id", "ttfb_ms", "duration_ms"}}
    assert told == {
        "level": "info", "logger": "gateway", "event": "request", "key": None, "route": "chat_completions",
        "model": "alpha-chat", "slug": "alpha", "worker": worker.address, "status": 200, "ending": "complete",
        "code": None, "attempts": 1, "stream": True, "queue_ms": 0.0, "prompt_tokens": None, "completion_tokens": None,
        "cached_tokens": None,
    }  # fmt: skip
    assert set(line) == FIELDS
    # the loop's clock counts whole milliseconds: a first byte within one of them took none
    assert 0 <= line["ttfb_ms"] < line["duration_ms"] < 5000
    assert line["duration_ms"] > 60
    assert len(gateway.events("request", id=line["id"])) == 1


def test_a_refusal_is_logged_like_an_answer(gateway: Gateway) -> None:
    """A refused request has the same fields, its code, and no model of the client's invention."""
    line = gateway.logged(gateway.chat("made-up-name"))
    assert set(line) == FIELDS
    assert (line["status"], line["ending"], line["code"]) == (404, "refused", "model_not_found")
    assert line["model"] == "unknown"
    assert (line["worker"], line["attempts"], line["ttfb_ms"]) == (None, 0, None)


def test_no_body_is_ever_logged(gateway: Gateway, worker: FakeWorker) -> None:
    """Neither what the client nor what the worker said is in the log."""
    body = ask("alpha") | {"messages": [{"role": "user", "content": "my-secret-words"}]}
    gateway.logged(gateway.http.post(CHAT, json=body))
    gateway.logged(gateway.http.post(CHAT, content=b'{"my-secret-words'))
    log = b"".join(gateway.raw_log)
    assert b"my-secret-words" not in log
    assert "你好".encode() not in log


def test_requests_are_counted(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """After known traffic every counter says what happened."""
    gateway = start_gateway()
    for _ in range(3):
        gateway.chat("alpha")
    gateway.chat("alpha", "error", status=400)
    gateway.chat("nobody")
    with pytest.raises(Exception, match="incomplete"):
        gateway.chat("alpha", "sse", end="drop")
    labels = {"model": "alpha", "route": "chat_completions"}
    count = gateway.metric
    broken = labels | {"status": "200", "ending": "broken"}
    wait_until(lambda: count("gateway_requests_total", **broken) == 1, "the broken stream")
    assert count("gateway_requests_total", **labels, status="200", ending="complete") == 3
    assert count("gateway_requests_total", **labels, status="400", ending="complete") == 1
    assert count("gateway_requests_total", model="unknown", status="404", ending="refused") == 1
    assert count("gateway_request_duration_seconds_count", **labels) == 5
    assert count("gateway_time_to_first_byte_seconds_count", **labels) == 5
    assert count("gateway_errors_total", model="unknown", code="model_not_found") == 1
    assert count("gateway_errors_total", model="alpha", code="upstream_disconnected") == 1
    assert count("gateway_model_state", model="alpha", state="ready") == 1
    assert count("gateway_worker_state", worker=own_worker.address, state="ready") == 1


def test_requests_in_flight_are_shown(gateway: Gateway, worker: FakeWorker) -> None:
    """A request is in flight until its body ends, not until its head has come."""
    with gateway.http.stream("POST", CHAT, json=ask("alpha", "sse", hold=1)) as answer:
        assert gateway.metric("gateway_requests_in_flight", worker=worker.address) == 1
        worker.next().go_on()
        answer.read()
    wait_until(
        lambda: gateway.metric("gateway_requests_in_flight", worker=worker.address) == 0, "the lease back"
    )


def test_clients_cannot_grow_the_metrics(gateway: Gateway) -> None:
    """Made-up models, methods and paths add no series."""
    gateway.chat("warm-up")
    gateway.http.request("PURGE", CHAT)
    before = len(gateway.ops.get("/metrics").text.splitlines())
    for number in range(50):
        gateway.chat(f"made-up-{number}")
        gateway.http.get(f"/v1/models/made-up-{number}")
        gateway.http.get(f"/made-up/{number}")
        gateway.http.request(("COPY", "LOCK", "MOVE", "LINK")[number % 4], CHAT)
    assert len(gateway.ops.get("/metrics").text.splitlines()) == before


def test_every_metric_line_is_in_the_text_format(gateway: Gateway) -> None:
    """Prometheus reads the exposition under its own content type."""
    answer = gateway.ops.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE gateway_requests_total counter" in answer.text


def test_targets_list_every_worker(gateway: Gateway, worker: FakeWorker) -> None:
    """Prometheus discovers workers at the ops port, ready or not."""
    targets = gateway.ops.get("/targets/worker").json()
    assert {"targets": [worker.address], "labels": {"slug": "alpha"}} in targets
    assert len(targets) == 6
