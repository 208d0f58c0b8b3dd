"""A fault of the gateway's own ends one request, is told as the gateway's, and blames no worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gateway.proxy.relay
from tests.fake_worker import WAIT_S, FakeWorker, event
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import Gateway, ask, post, read_to_end, wait_until

gateway_of_this_run = gateway.proxy.relay.__file__ or ""
is_compiled = not gateway_of_this_run.endswith(".py")
on_source = pytest.mark.skipif(
    is_compiled, reason="compiled classes cannot be patched: make test runs this on the source"
)

# What the process runs before anything else: a request that asks for it by a header meets a fault at that place.
FAULTY = """
import functools, gateway.proxy.handler, gateway.proxy.relay

def break_at(owner, name):
    whole = getattr(owner, name)
    @functools.wraps(whole)
    def broken(self, *words, **more):
        if (b"x-fault", name.encode()) in self._request.headers:
            raise RuntimeError(f"planted in {name}")
        return whole(self, *words, **more)
    setattr(owner, name, broken)

for name in ("open", "payload", "send_rest", "comment"):
    break_at(gateway.proxy.relay.Relay, name)
for name in ("_read", "on_head", "on_failure", "check_deadlines"):
    break_at(gateway.proxy.handler.ProxyHandler, name)
"""
DOCUMENT = ask("alpha")
STREAM = ask("alpha", "sse", chunks=3) | {"stream": True, "stream_options": {"include_usage": True}}
BEFORE = [  # anything of the answer is out
    ("_read", DOCUMENT),
    ("on_head", DOCUMENT),
    ("on_head", STREAM),
    ("open", DOCUMENT),
    ("payload", DOCUMENT),
    ("payload", STREAM),
    ("on_failure", ask("alpha", "close")),
    ("check_deadlines", ask("alpha", "hang")),
    ("comment", STREAM | {"script": {"do": "hang"}}),
]


@pytest.fixture
def faulty(start_gateway: StartGateway, tmp_path: Path) -> Gateway:
    """A gateway in which faults are planted."""
    (tmp_path / "sitecustomize.py").write_text(FAULTY)
    return start_gateway(PYTHONPATH=tmp_path, GATEWAY_COMMENT_S=0.2)


def raw(gateway: Gateway, body: dict[str, object], fault: str) -> bytes:
    request = post(json.dumps(body).encode(), f"x-fault: {fault}", "connection: close")
    with gateway.connect(request) as connection:
        return read_to_end(connection)


@on_source
def test_faults_of_our_own(faulty: Gateway, own_worker: FakeWorker) -> None:
    """Before anything is out it is a 500; in a stream an error event, and no end; the worker is let go, and ready."""
    for place, body in BEFORE:
        head, _, told = raw(faulty, body, place).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 500 "), place
        assert b"x-gateway-error: gateway_error" in head
        assert json.loads(told)["error"]["code"] == "gateway_error"
    within = ask("alpha", "sse", chunks=2) | {"stream": True}, ask("alpha", "sse", hold=1) | {"stream": True}
    for place, body in zip(("send_rest", "comment"), within, strict=True):
        answer = raw(faulty, body, place)
        assert event(0) in answer, place
        assert b'"code":"gateway_error"' in answer
        assert not answer.endswith(b"0\r\n\r\n")
    faults = faulty.several(len(BEFORE) + 2, "fault")
    assert all("planted in" in fault["traceback"] for fault in faults)
    blamed = {line["code"] for line in faulty.several(len(BEFORE) + 2, "request")}
    assert blamed == {"gateway_error"}
    wait_until(lambda: faulty.in_flight() == 0, "every lease given back")
    assert faulty.metric("gateway_worker_failures_total") == 0
    assert faulty.slug("alpha")["workers"][0]["state"] == "ready"
    assert faulty.chat("alpha").status_code == 200


@on_source
def test_a_fault_frees_the_worker(faulty: Gateway, own_worker: FakeWorker) -> None:
    """The connection is closed: what the worker still makes would be for nobody."""
    body = ask("alpha", "sse", chunks=2, hold=1) | {"stream": True, "stream_options": {"include_usage": True}}
    raw(faulty, body, "payload")
    assert own_worker.next().gone.wait(WAIT_S)


OBSERVER = """
import gateway.discovery.loop  # which is never compiled

def broken(self, transition):
    if transition.after == "suspect":
        raise RuntimeError("planted in an observer")

gateway.discovery.loop.DiscoveryLoop._report_state = broken
"""


def test_a_fault_behind_a_workers_head(
    start_gateway: StartGateway, own_worker: FakeWorker, tmp_path: Path
) -> None:
    """Also of the compiled form: a worker's 502 changes its state, who is told of that fails, and it is a 500."""
    (tmp_path / "sitecustomize.py").write_text(OBSERVER)
    gateway = start_gateway(
        PYTHONPATH=f"{tmp_path}:{Path(gateway_of_this_run).parents[2]}",
        GATEWAY_EJECT_AFTER=1,
        GATEWAY_INTERVAL_S=60,
    )
    answer = gateway.chat("alpha", "error", status=502)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "gateway_error")
    assert "planted in an observer" in gateway.event("fault")["traceback"]
    assert gateway.chat("alpha").status_code == 200
    assert gateway.in_flight() == 0
