"""A stored response is found at its worker by any process of the gateway, also by one that began later."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.fake_worker import COMPLETION, WAIT_S, FakeWorker
from tests.integration.gateway.conftest import StartWorker
from tests.integration.gateway.harness import Gateway, Site, wait_until

RESPONSE = "/v1/responses/resp_kept"


@pytest.fixture
def workers(start_worker: StartWorker) -> list[FakeWorker]:
    """Three of one model."""
    return [start_worker("alpha") for _ in range(3)]


@pytest.fixture
def start(site: Site, workers: list[FakeWorker]) -> Iterator[Callable[..., Gateway]]:
    """Starts a gateway that knows nothing of what another one did."""
    site.attach({"alpha": workers})
    started: list[Gateway] = []

    def begin(processes: int = 1) -> Gateway:
        gateway = Gateway(site, GATEWAY_PROCESSES=processes)
        started.append(gateway)
        ready = processes * len(workers)
        wait_until(lambda: len(gateway.events("worker_state", to="ready")) == ready, "all ready", 3 * WAIT_S)
        return gateway

    yield begin
    for gateway in started:
        gateway.process.kill()
        gateway.end()


def fresh(gateway: Gateway, method: str, target: str, body: object = None) -> httpx.Response:
    """Over a connection of its own, which the kernel gives to one of the processes."""
    with httpx.Client(base_url=f"http://{gateway.address}", timeout=10, trust_env=False) as client:
        return client.request(method, target, json=body)


def make(gateway: Gateway, **fields: object) -> httpx.Response:
    script = {"do": "pieces", "pieces": ['{"id":"resp_kept","object":"response"}'], "json": True}
    return fresh(gateway, "POST", "/v1/responses", {"model": "alpha", "script": script, **fields})


def held_by(workers: list[FakeWorker]) -> FakeWorker:
    return next(worker for worker in workers if worker.responses)


def keep(worker: FakeWorker, workers: list[FakeWorker]) -> None:
    """Has `worker` alone keep the response."""
    for one in workers:
        one.responses = {"resp_kept"} if one is worker else set()


def test_whoever_is_asked_finds_it(start: Callable[..., Gateway], workers: list[FakeWorker]) -> None:
    """By whatever connection: retrieval, cancelling and the next turn, which is generated once, by who has it."""
    gateway = start(processes=2)
    assert make(gateway).status_code == 200
    holder = held_by(workers)
    for _ in range(20):
        assert fresh(gateway, "GET", RESPONSE).content == COMPLETION
        assert fresh(gateway, "POST", f"{RESPONSE}/cancel").content == COMPLETION
    for worker in workers:
        worker.forget()
    for _ in range(6):
        assert make(gateway, previous_response_id="resp_kept").status_code == 200
    assert holder.seen.qsize() == 6
    assert gateway.metric("gateway_retries_total") == 0


def test_a_gateway_that_began_later(start: Callable[..., Gateway], workers: list[FakeWorker]) -> None:
    """Asks the workers, whichever has it, and then no other for the same response."""
    for number, worker in enumerate(workers):
        worker.responses = {f"resp_{number}"}
    gateway = start()
    for number, worker in enumerate(workers):
        assert fresh(gateway, "GET", f"/v1/responses/resp_{number}").content == COMPLETION
        for one in workers:
            one.forget()
        assert make(gateway, previous_response_id=f"resp_{number}").status_code == 200
        assert [one.seen.qsize() for one in workers] == [int(one is worker) for one in workers]
    assert gateway.http.get("/v1/responses/resp_nobodys").status_code == 404


def test_a_worker_that_does_not_keep_it(start: Callable[..., Gateway], workers: list[FakeWorker]) -> None:
    """As vLLM does by default: the answer that asks for it says so, and what to do."""
    gateway = start()
    for worker in workers:
        worker.keeps = False
    assert make(gateway).status_code == 200
    for answer in (
        fresh(gateway, "GET", RESPONSE),
        fresh(gateway, "GET", "/v1/responses/resp_unknown"),
        make(gateway, previous_response_id="resp_kept"),
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (404, "invalid_request_error")
        assert "VLLM_ENABLE_RESPONSES_API_STORE=1" in error["message"]


def test_a_worker_that_cannot_be_asked(start: Callable[..., Gateway], workers: list[FakeWorker]) -> None:
    """It may have the response: nobody says that it is not there. One that another worker has is found all the same."""
    gateway = start()
    keep(workers[2], workers)
    workers[0].refuses = 503
    assert fresh(gateway, "GET", RESPONSE).content == COMPLETION
    assert fresh(gateway, "GET", "/v1/responses/resp_other").status_code == 503
    workers[0].kill()
    assert fresh(gateway, "GET", "/v1/responses/resp_third").status_code in (404, 503)
    assert fresh(gateway, "GET", RESPONSE).content == COMPLETION
