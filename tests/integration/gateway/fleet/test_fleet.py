"""What clients are told of models and workers that are absent, loading, misnamed, down and back."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import httpx
import pytest

from gateway.fleet.health import Failure
from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway, StartWorker
from tests.integration.gateway.harness import CHAT, Gateway, Pools, Site, ask, wait_until

Two = tuple[Gateway, FakeWorker, FakeWorker]


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


def test_a_loading_model_says_when_to_come_back(gateway: Gateway) -> None:
    """A model whose worker is not ready yet gets 503 with Retry-After."""
    answer = gateway.chat("starting")
    assert refusal(answer)[:2] == (503, "model_loading")
    assert int(answer.headers["retry-after"]) > 0


def test_a_worker_that_serves_other_names_stays_out(gateway: Gateway) -> None:
    """A worker whose /v1/models lacks a name of its card gets no requests; /workers and the clients' error say why."""
    described = gateway.slug("misnamed")["workers"][0]
    why = "serves somebody-else but its card says misnamed; check docker/misnamed"
    assert (described["state"], described["reason"]) == ("misnamed", why)
    status, code, message = refusal(gateway.chat("misnamed"))
    assert (status, code) == (503, "no_worker_available")
    assert message == f"A worker of the model 'misnamed' {why}"


def test_workers_lists_every_slug(gateway: Gateway, fleet: Pools) -> None:
    """/workers shows declared slugs with their state, whether they run or not."""
    slugs = {one["slug"]: one for one in gateway.ops.get("/workers").json()["slugs"]}
    assert {slug: one["state"] for slug, one in slugs.items()} == {
        "absent": "absent", "alpha": "ready", "misnamed": "down", "pair": "ready", "starting": "loading",
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


def test_a_stream_before_its_first_token_is_heavier_than_one_behind_it(
    gateway: Gateway, fleet: Pools
) -> None:
    """A worker that reads a prompt is spared: three streams that have begun are less than one that has not."""
    pair = fleet["pair"]
    for worker in pair:
        worker.forget()
    silent, begun = (ask("pair", "sse", chunks=2, hold=hold) | {"stream": True} for hold in (0, 1))
    with ThreadPoolExecutor(1) as client, ExitStack() as streams:
        streams.callback(
            lambda: [worker.next().go_on() for worker in pair for _ in range(worker.seen.qsize())]
        )
        client.submit(gateway.http.post, CHAT, json=silent)
        wait_until(lambda: sum(worker.seen.qsize() for worker in pair) == 1, "the silent stream")
        for _ in range(3):
            answer = streams.enter_context(gateway.http.stream("POST", CHAT, json=begun))
            next(answer.iter_raw())
        assert sorted(worker.seen.qsize() for worker in pair) == [1, 3]


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


def changes(gateway: Gateway, least: int, **facts: object) -> list[tuple[str, str]]:
    """Every logged transition with these facts, as from and to; waits for as many as `least`."""
    return [(line["from"], line["to"]) for line in gateway.several(least, "worker_state", **facts)]


def test_every_change_of_a_worker_is_one_log_line(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """Joining, becoming ready and failing are each logged and counted once, not once a probe."""
    gateway = start_gateway()
    own_worker.health = 503
    gateway.wait_for("alpha", "down")
    wait_until(lambda: gateway.slug("alpha")["workers"][0]["failed_probes"] > 6, "three more failed probes")
    assert changes(gateway, 3) == [("starting", "ready"), ("ready", "suspect"), ("suspect", "down")]
    assert len(gateway.events("worker_joined")) == 1
    assert gateway.events("worker_state", to="down")[0]["reason"] == "/health answered 503"
    assert gateway.metric("gateway_worker_transitions_total", slug="alpha", to="down") == 1


def test_a_hung_worker_does_not_delay_the_others(site: Site, start_worker: StartWorker) -> None:
    """A worker that accepts and says nothing costs its own probes, and no request to another model."""
    site.declare("beta", "beta")
    hung, well = start_worker("alpha", health=-1), start_worker("beta")
    site.attach({"alpha": [hung], "beta": [well]})
    gateway = Gateway(site)
    gateway.wait_for("beta", "ready")
    wait_until(lambda: "no answer" in gateway.slug("alpha")["workers"][0]["reason"], "a probe past its limit")
    assert gateway.chat("beta").content == COMPLETION
    gateway.terminate()
    assert gateway.end() == (0, "")


@pytest.fixture
def two(site: Site, start_worker: StartWorker) -> Iterator[Two]:
    """A gateway in front of two workers of `pair`, whose ejections last 0.5 s."""
    workers = [start_worker("pair"), start_worker("pair")]
    site.declare("pair", "pair")
    site.attach({"pair": workers})
    gateway = Gateway(site, GATEWAY_EJECTION_S=0.5, GATEWAY_FIRST_BYTE_TIMEOUT_S=0.2, GATEWAY_INTERVAL_S=0.05)
    gateway.wait_for("pair", "ready", "ready")
    yield gateway, *workers
    gateway.terminate()
    assert gateway.end() == (0, "")


def ask_both(gateway: Gateway, do: str, **script: object) -> list[int]:
    """Ten requests for streams, one after another: idle workers take turns."""
    body = ask("pair", do, **script) | {"stream": True}
    return [gateway.http.post(CHAT, json=body).status_code for _ in range(10)]


def states(gateway: Gateway) -> list[str]:
    return [worker["state"] for worker in gateway.slug("pair")["workers"]]


@pytest.mark.parametrize(
    ("failure", "do", "script"),
    [
        ("reset", "close", {}),
        ("reset", "garbage", {}),
        ("unavailable", "error", {"status": 503}),
        ("first_byte", "hang", {}),
    ],
)
def test_failed_requests_eject_all_but_the_last(
    two: Two, failure: str, do: str, script: dict[str, object]
) -> None:
    """Every worker fails every request, and is healthy by its probes: one is ejected, the last one goes on."""
    gateway, *_ = two
    ask_both(gateway, do, **script)
    assert "no other worker" in gateway.event("worker_state", to="suspect")["reason"]
    assert len({line["worker"] for line in gateway.events("worker_state", to="ejected")}) == 1
    assert gateway.metric("gateway_worker_ejections_total", slug="pair") >= 1
    assert gateway.metric("gateway_worker_failures_total", slug="pair", failure=failure) >= 10
    ejected = gateway.event("worker_state", to="ejected")
    assert ejected["from"] == "ready"
    assert f"5 failed requests in a row, the last: {failure}" in ejected["reason"]


def test_answers_that_break_off_eject(two: Two) -> None:
    """Streams that begin well and are dropped: a good head excuses nothing."""
    gateway, *_ = two
    for _ in range(10):
        with suppress(httpx.RemoteProtocolError):
            gateway.chat("pair", "sse", end="drop")
    assert "the last: broken" in gateway.event("worker_state", to="ejected")["reason"]


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500])
def test_a_clients_fault_ejects_nobody(two: Two, status: int) -> None:
    """Nor does a 429, or a 500, which the request itself may have caused."""
    gateway, *_ = two
    ask_both(gateway, "error", status=status)
    assert ask_both(gateway, "error", status=status) == [status] * 10
    assert states(gateway) == ["ready", "ready"]
    counted = [
        one for one in Failure if gateway.metric("gateway_worker_failures_total", slug="pair", failure=one)
    ]
    assert counted in ([], [Failure.FIRST_BYTE])  # a slow host may need more than 0.2 s for an answer


def test_an_ejected_worker_is_tried_and_taken_back(two: Two) -> None:
    """A passing probe does not end its ejection; then one good answer does."""
    gateway, *_ = two
    ask_both(gateway, "close")
    gateway.event("worker_state", to="half_open")
    served = [gateway.chat("pair").status_code for _ in range(4)]
    assert served == [200] * 4
    gateway.wait_for("pair", "ready", "ready")
    ejected = gateway.event("worker_state", to="ejected")["worker"]
    gateway.event("worker_state", worker=ejected, to="ready", **{"from": "half_open"})
    assert changes(gateway, 4, worker=ejected)[-3:] == [
        ("ready", "ejected"),
        ("ejected", "half_open"),
        ("half_open", "ready"),
    ]


def test_a_killed_worker_is_passed_over_at_once(two: Two) -> None:
    """After one refused connection nobody is sent there: every request is answered, and none but one tries twice."""
    gateway, first, _ = two
    first.kill()
    answers = [gateway.chat("pair") for _ in range(20)]
    assert [answer.status_code for answer in answers] == [200] * 20
    assert sum(gateway.logged(answer)["attempts"] for answer in answers) <= 22
    wait_until(lambda: states(gateway) == ["down", "ready"], "the killed worker down")


def test_an_engine_that_stands_still_goes_down(site: Site, start_worker: StartWorker) -> None:
    """Its /health says 200 all the while. Suspect, then down; only progress brings it back, not fewer requests."""
    site.declare("alpha", "alpha", progress=(0.3, 0.6))
    worker = start_worker("alpha")
    worker.says(running=1, finished=73, generated=7)
    site.attach({"alpha": [worker]})
    gateway = Gateway(site, GATEWAY_INTERVAL_S=0.05)
    gateway.wait_for("alpha", "ready")
    asked = worker.asked["/metrics"]
    wait_until(lambda: worker.asked["/metrics"] > asked + 20, "probes for longer than the limits")
    gateway.wait_for("alpha", "ready")  # those 73 were its launcher's; a client's first may compile
    worker.says(running=1, finished=74, generated=7)
    gateway.wait_for("alpha", "down")
    assert "have not moved" in gateway.slug("alpha")["workers"][0]["reason"]
    assert refusal(gateway.chat("alpha"))[:2] == (503, "no_worker_available")
    worker.says(running=0, finished=74, generated=7)
    asked = worker.asked["/metrics"]
    wait_until(lambda: worker.asked["/metrics"] > asked + 5, "probes that pass")
    gateway.wait_for("alpha", "down")
    worker.says(running=1, finished=74, generated=8)
    gateway.wait_for("alpha", "ready")
    assert changes(gateway, 4)[:4] == [
        ("starting", "ready"), ("ready", "suspect"), ("suspect", "down"), ("down", "ready"),
    ]  # fmt: skip
    gateway.terminate()
    assert gateway.end() == (0, "")


def test_the_gateways_own_limits_count_against_nobody(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """Without a file left for a probe or a connection the gateway says so, and the worker stays what it was."""
    gateway = start_gateway(GATEWAY_POOL_IDLE_S=0.001)
    pid = gateway.process.pid
    gateway.chat("alpha")
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    gateway.event("probes_impossible")
    refused = [refusal(gateway.chat("alpha"))[:2] for _ in range(6)]
    assert refused == [(503, "overloaded")] * 6
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    gateway.event("probes_possible")
    assert gateway.chat("alpha").content == COMPLETION
    assert changes(gateway, 1) == [("starting", "ready")]
    assert gateway.metric("gateway_worker_failures_total") == 0


def test_a_worker_shows_its_queue(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Its own metrics are on /workers, where policies and people look."""
    gateway = start_gateway()
    own_worker.says(waiting=7, kv_use=0.5)
    wait_until(lambda: gateway.slug("alpha")["workers"][0]["waiting"] == 7, "the worker's queue")
    assert gateway.slug("alpha")["workers"][0]["kv_use"] == 0.5


def test_a_model_that_fails_takes_no_others_retries(site: Site, start_worker: StartWorker) -> None:
    """Its requests use up its own budget; another model's are still sent to a second worker."""
    site.declare("bad", "bad")
    site.declare("good", "good")
    bad, good = ([start_worker(name), start_worker(name)] for name in ("bad", "good"))
    site.attach({"bad": bad, "good": good})
    gateway = Gateway(site, GATEWAY_EJECT_AFTER=1000)
    try:
        gateway.wait_for("bad", "ready", "ready")
        gateway.wait_for("good", "ready", "ready")
        for worker in (*bad, good[0]):
            worker.refuses = 503
        assert {gateway.chat("bad").status_code for _ in range(20)} == {503}
        assert [worker.seen.qsize() for worker in bad] != [20, 20]
        assert {gateway.chat("good").status_code for _ in range(8)} == {200}
        assert gateway.metric("gateway_retries_total") > 12
    finally:
        gateway.process.kill()
        gateway.end()
