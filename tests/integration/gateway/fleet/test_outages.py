"""Half of a pool fails, all of it does, or the gateway itself is killed: nobody is hit twice as hard for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from statistics import median

import pytest

from gateway.proxy.retry_budget import RESERVE
from tests.fake_worker import COMPLETION, FakeWorker, Seen
from tests.integration.gateway.conftest import StartGateway, StartWorker
from tests.integration.gateway.harness import Gateway, Site, ask, post, read_to_end, wait_until

REQUESTS = 200
MIB = 1 << 20
MOST_ATTEMPTS = 1.2 * REQUESTS


@pytest.fixture
def pair(site: Site, own_worker: FakeWorker, start_worker: StartWorker) -> tuple[FakeWorker, FakeWorker]:
    """The two workers of `alpha`; a gateway that is started afterwards knows both."""
    other = start_worker("alpha")
    site.attach({"alpha": [own_worker, other]})
    return own_worker, other


@pytest.fixture
def gateway(site: Site, pair: tuple[FakeWorker, FakeWorker]) -> Iterator[Gateway]:
    """One before the pair, both ready."""
    gateway = Gateway(site)
    gateway.wait_for("alpha", "ready", "ready")
    yield gateway
    gateway.terminate()
    gateway.end()


def attempts(gateway: Gateway) -> int:
    return sum(line["attempts"] for line in gateway.several(REQUESTS, "request"))


def test_half_of_the_workers_refuse(gateway: Gateway, pair: tuple[FakeWorker, FakeWorker]) -> None:
    """Every request is answered, and no more than a fifth is sent twice: who refuses again and again is left alone."""
    pair[0].refuses = 503
    answers = [gateway.chat("alpha").content for _ in range(REQUESTS)]
    assert answers == [COMPLETION] * REQUESTS
    assert attempts(gateway) <= MOST_ATTEMPTS
    assert pair[0].seen.qsize() <= MOST_ATTEMPTS - REQUESTS


def test_all_workers_die(gateway: Gateway, pair: tuple[FakeWorker, FakeWorker]) -> None:
    """Each request is refused at once, and their return is not awaited with attempts."""
    for worker in pair:
        worker.kill()
    answers = [gateway.chat("alpha") for _ in range(REQUESTS)]
    assert {answer.status_code for answer in answers} == {503}
    assert {"retry-after"} <= set(answers[-1].headers)
    assert attempts(gateway) <= MOST_ATTEMPTS
    assert median(line["duration_ms"] for line in gateway.events("request")) <= 50


def test_all_workers_refuse(gateway: Gateway, pair: tuple[FakeWorker, FakeWorker]) -> None:
    """A pool that is overloaded gets a fifth more requests at most, and its refusals reach the clients."""
    for worker in pair:
        worker.refuses = 503
    assert {gateway.chat("alpha").status_code for _ in range(REQUESTS)} == {503}
    assert attempts(gateway) <= MOST_ATTEMPTS + RESERVE


def refused_late(padding: int) -> bytes:
    """A request that its worker refuses once it is told to go on."""
    body = ask("alpha", "error", status=503, hold=True) | {"padding": "x" * padding}
    return post(json.dumps(body).encode(), "connection: close")


def taken(pair: tuple[FakeWorker, FakeWorker]) -> Seen:
    """What one of them has got; waits for it."""
    got = wait_until(lambda: [worker for worker in pair if worker.seen.qsize()], "a request at a worker")
    return got[0].next()


def test_a_late_refusal(gateway: Gateway, pair: tuple[FakeWorker, FakeWorker]) -> None:
    """A small request is still sent to the other worker; a large one is held no more, and its refusal passed on."""
    with gateway.connect(refused_late(10)) as small, gateway.connect() as large:
        small_at_worker = taken(pair)
        large.sendall(refused_late(MIB))
        large_at_worker = taken(pair)
        wait_until(lambda: 0 < gateway.metric("gateway_bodies_bytes") < MIB, "the small one held alone")
        small_at_worker.go_on()
        taken(pair).go_on()
        large_at_worker.go_on()
        answers = [read_to_end(small), read_to_end(large)]
    assert all(answer.startswith(b"HTTP/1.1 503 ") and b"told by the worker" in answer for answer in answers)
    assert sorted(line["attempts"] for line in gateway.several(2, "request")) == [1, 2]


@pytest.mark.full
def test_a_killed_gateway_is_back_within_two_seconds(start_gateway: StartGateway, site: Site) -> None:
    """It keeps nothing that it would have to restore."""
    first = start_gateway()
    first.process.kill()
    first.end()
    port, started = first.address.rpartition(":")[2], time.monotonic()
    second = Gateway(site, GATEWAY_PORT=port)
    wait_until(lambda: second.http.get("/ready").status_code == 200, "ready", 2)
    assert time.monotonic() - started < 2
    second.terminate()
    assert second.end() == (0, "")
