"""What clients are told of models and workers that are absent, loading, misnamed, down and back."""

from __future__ import annotations

import httpx
import pytest

from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway, StartWorker
from tests.integration.gateway.harness import Gateway, Pools, Site, wait_until


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and message of one of the gateway's own errors, which name themselves in a header too."""
    error = answer.json()["error"]
    assert answer.headers["x-gateway-error"] == error["code"]
    return answer.status_code, error["code"], error["message"]


def test_an_undeclared_model_is_not_found(gateway: Gateway) -> None:
    """A name on no card gets 404 and the names that would work."""
    answer = gateway.chat("gpt-4")
    status, code, message = refusal(answer)
    assert (status, code, answer.json()["error"]["param"]) == (404, "model_not_found", "model")
    assert "'gpt-4'" in message
    assert "alpha, alpha-chat, pair, thinker" in message


def test_a_model_that_is_not_started_names_the_command(gateway: Gateway) -> None:
    """A declared model without workers gets 404 and the command that starts it."""
    status, code, message = refusal(gateway.chat("absent"))
    assert (status, code) == (404, "model_not_found")
    assert "declared but not started: docker compose up -d absent" in message


@pytest.mark.parametrize("model", ["starting", "misnamed"])
def test_a_loading_model_says_when_to_come_back(gateway: Gateway, model: str) -> None:
    """A model whose worker is not ready yet gets 503 with Retry-After."""
    answer = gateway.chat(model)
    assert refusal(answer)[:2] == (503, "model_loading")
    assert int(answer.headers["retry-after"]) > 0


def test_a_worker_that_serves_other_names_stays_out(gateway: Gateway) -> None:
    """A worker whose /v1/models lacks a name of its card gets no requests, and /workers says why."""
    described = gateway.slug("misnamed")["workers"][0]
    assert described["state"] == "starting"
    assert described["reason"] == "serves somebody-else but its card says misnamed; check docker/misnamed"


def test_workers_lists_every_slug(gateway: Gateway, fleet: Pools) -> None:
    """/workers shows declared slugs with their state, whether they run or not."""
    slugs = {one["slug"]: one for one in gateway.ops.get("/workers").json()["slugs"]}
    assert {slug: one["state"] for slug, one in slugs.items()} == {
        "absent": "absent", "alpha": "ready", "misnamed": "loading", "pair": "ready", "starting": "loading",
        "thinker": "ready",
    }  # fmt: skip
    assert slugs["alpha"]["models"] == ["alpha", "alpha-chat"]
    assert [worker["address"] for worker in slugs["pair"]["workers"]] == [
        one.address for one in fleet["pair"]
    ]


def test_ready_with_one_ready_model(gateway: Gateway) -> None:
    """/ready is 200 as soon as one model is, whatever the others do."""
    answer = gateway.http.get("/ready")
    assert (answer.status_code, answer.json()["models"]) == (200, ["alpha", "alpha-chat", "pair", "thinker"])


def test_two_workers_share_the_load(gateway: Gateway, fleet: Pools) -> None:
    """Requests that overlap go to the worker with fewer in flight; idle workers take turns."""
    for worker in fleet["pair"]:
        worker.forget()
    for _ in range(4):
        gateway.chat("pair")
    assert [worker.seen.qsize() for worker in fleet["pair"]] == [2, 2]


def test_a_killed_worker_is_noticed_and_taken_back(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """Requests for a dead worker get 503 with Retry-After at once; it serves again when it is back."""
    gateway = start_gateway()
    gateway.chat("alpha")
    own_worker.kill()
    answer = gateway.chat("alpha")
    assert refusal(answer)[:2] == (503, "no_worker_available")
    assert int(answer.headers["retry-after"]) > 0
    gateway.wait_for("alpha", "down")
    assert refusal(gateway.chat("alpha"))[:2] == (503, "no_worker_available")
    assert gateway.http.get("/ready").status_code == 503
    assert gateway.http.get("/v1/models").json()["data"] == []
    own_worker.revive()
    gateway.wait_for("alpha", "ready")
    assert gateway.chat("alpha").content == COMPLETION


def test_every_change_of_a_worker_is_one_log_line(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """Joining, becoming ready and failing are each logged once, not once a probe."""
    gateway = start_gateway()
    own_worker.health = 503
    gateway.wait_for("alpha", "down")
    wait_until(lambda: gateway.slug("alpha")["workers"][0]["failures"] > 6, "three more failed probes")
    assert len(gateway.events("worker_joined")) == 1
    assert [line["state"] for line in gateway.events("worker_state")] == ["ready", "ready", "down"]


def test_a_hung_worker_does_not_delay_the_others(site: Site, start_worker: StartWorker) -> None:
    """A worker that accepts and says nothing costs its own probes, and no request to another model."""
    site.declare("beta", "beta")
    hung, well = start_worker("alpha", health=-1), start_worker("beta")
    site.attach({"alpha": [hung], "beta": [well]})
    gateway = Gateway(site)
    gateway.wait_for("beta", "ready")
    wait_until(lambda: "Timeout" in gateway.slug("alpha")["workers"][0]["reason"], "a probe past its limit")
    assert gateway.chat("beta").content == COMPLETION
    gateway.terminate()
    assert gateway.end() == (0, "")
