"""Half of a pool fails, all of it does, or the gateway itself is killed: nobody is hit twice as hard for it."""

from __future__ import annotations

import time
from statistics import median

import pytest

from gateway.retries import RESERVE
from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway, StartWorker
from tests.integration.gateway.harness import Gateway, Site, wait_until

REQUESTS = 200
MOST_ATTEMPTS = 1.2 * REQUESTS


@pytest.fixture
def pair(site: Site, own_worker: FakeWorker, start_worker: StartWorker) -> tuple[FakeWorker, FakeWorker]:
    """The two workers of `alpha`; a gateway that is started afterwards knows both."""
    other = start_worker("alpha")
    site.attach({"alpha": [own_worker, other]})
    return own_worker, other


def start(site: Site, pair: tuple[FakeWorker, FakeWorker]) -> Gateway:
    gateway = Gateway(site)
    gateway.wait_for("alpha", "ready", "ready")
    return gateway


def attempts(gateway: Gateway) -> int:
    lines = wait_until(
        lambda: found if len(found := gateway.events("request")) >= REQUESTS else None, "every log line"
    )
    return sum(line["attempts"] for line in lines)


def test_half_of_the_workers_refuse(site: Site, pair: tuple[FakeWorker, FakeWorker]) -> None:
    """Every request is answered, and no more than a fifth is sent twice: who refuses again and again is left alone."""
    gateway = start(site, pair)
    pair[0].refuses = 503
    answers = [gateway.chat("alpha").content for _ in range(REQUESTS)]
    assert answers == [COMPLETION] * REQUESTS
    assert attempts(gateway) <= MOST_ATTEMPTS
    assert pair[0].seen.qsize() <= MOST_ATTEMPTS - REQUESTS
    gateway.terminate()
    gateway.end()


def test_all_workers_die(site: Site, pair: tuple[FakeWorker, FakeWorker]) -> None:
    """Each request is refused at once, and their return is not awaited with attempts."""
    gateway = start(site, pair)
    for worker in pair:
        worker.kill()
    answers = [gateway.chat("alpha") for _ in range(REQUESTS)]
    assert {answer.status_code for answer in answers} == {503}
    assert {"retry-after"} <= set(answers[-1].headers)
    assert attempts(gateway) <= MOST_ATTEMPTS
    assert median(line["duration_ms"] for line in gateway.events("request")) <= 50
    gateway.terminate()
    gateway.end()


def test_all_workers_refuse(site: Site, pair: tuple[FakeWorker, FakeWorker]) -> None:
    """A pool that is overloaded gets a fifth more requests at most, and its refusals reach the clients."""
    gateway = start(site, pair)
    for worker in pair:
        worker.refuses = 503
    assert {gateway.chat("alpha").status_code for _ in range(REQUESTS)} == {503}
    assert attempts(gateway) <= MOST_ATTEMPTS + RESERVE
    gateway.terminate()
    gateway.end()


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
