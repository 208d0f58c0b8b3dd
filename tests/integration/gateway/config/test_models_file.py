"""What GATEWAY_MODELS_FILE says counts: aliases, reasoning, lines for busy workers, weights of slugs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.fake_worker import COMPLETION, WAIT_S, FakeWorker
from tests.integration.gateway.conftest import StartGateway, StartWorker
from tests.integration.gateway.harness import CHAT, Gateway, Site, ask, post, read_to_end, wait_until

ALIASES = """
aliases:
  careful:
    model: alpha
    force: {temperature: 0, chat_template_kwargs: {enable_thinking: true}}
    default: {max_tokens: 100, seed: 7}
"""
REASONING = "aliases:\n  {0}: {{model: alpha, reasoning: {0}}}\n"
ONE_AT_A_TIME = "models:\n  alpha:\n    in_flight_per_worker: 1\n    queue: {most: %d, wait_s: %s}\n"
THOUGHT = '{"choices":[{"index":0,"message":{"role":"assistant","reasoning":"2+2","content":"4"}}]}'
BOTH = '{"role":"assistant","reasoning":"2+2","reasoning_content":"2+2","content":"4"}'
MESSAGES = {
    "both": BOTH,
    "reasoning": '{"role":"assistant","reasoning":"2+2","content":"4"}',
    "reasoning_content": '{"role":"assistant","reasoning_content":"2+2","content":"4"}',
    "none": '{"role":"assistant","content":"4"}',
}
HELD = ask("alpha", "json", hold=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def started(start_gateway: StartGateway, file: Path, text: str) -> Gateway:
    """A gateway with this models file."""
    file.write_text(text)
    return start_gateway(GATEWAY_MODELS_FILE=file)


def ask_held(clients: ThreadPoolExecutor, gateway: Gateway) -> Future[httpx.Response]:
    """A request on its way, which the worker holds back."""
    return clients.submit(httpx.post, f"http://{gateway.address}{CHAT}", json=HELD, timeout=WAIT_S)


def test_an_alias_sets_parameters(start_gateway: StartGateway, own_worker: FakeWorker, file: Path) -> None:
    """Forced ones replace the client's, others fill in what it left out; the worker sees its own name."""
    gateway = started(start_gateway, file, ALIASES)
    body = ask("careful") | {"temperature": 1, "seed": 3, "max_tokens": None, "top_p": 0.5}
    assert gateway.http.post(CHAT, json=body).content == COMPLETION
    assert json.loads(own_worker.next().body) == body | {
        "model": "alpha",
        "temperature": 0,
        "chat_template_kwargs": {"enable_thinking": True},
        "max_tokens": 100,
        "seed": 3,
    }


def test_an_alias_leaves_its_model_alone(
    start_gateway: StartGateway, own_worker: FakeWorker, file: Path
) -> None:
    """Under its own name the model gets what the client sends, byte by byte."""
    gateway = started(start_gateway, file, ALIASES)
    body = b'{ "model":"alpha", "temperature": 1.0e0}'
    assert gateway.http.post(CHAT, content=body).content == COMPLETION
    assert own_worker.next().body == body


def test_an_alias_is_listed(start_gateway: StartGateway, own_worker: FakeWorker, file: Path) -> None:
    """Beside its model, and by itself, and no longer once the model is down."""
    gateway = started(start_gateway, file, ALIASES)
    assert [model.id for model in gateway.openai.models.list()] == ["alpha", "careful"]
    assert gateway.openai.models.retrieve("careful").id == "careful"
    own_worker.kill()
    wait_until(lambda: gateway.http.get("/v1/models").json()["data"] == [], "no model listed")
    assert gateway.http.get("/v1/models/careful").status_code == 503
    assert gateway.chat("careful").status_code == 503


@pytest.mark.parametrize("reasoning", MESSAGES)
def test_an_alias_names_the_reasoning(
    start_gateway: StartGateway, site: Site, file: Path, reasoning: str
) -> None:
    """In answers and in streams it goes out under the names that the alias asks for; the model itself has both."""
    site.declare("alpha", "alpha", reasons=True)
    gateway = started(start_gateway, file, REASONING.format(reasoning))
    event = THOUGHT.replace('"message"', '"delta"')
    for model, message in ((reasoning, MESSAGES[reasoning]), ("alpha", BOTH)):
        answer = gateway.chat(model, "pieces", pieces=[THOUGHT], json=True)
        assert answer.text == THOUGHT.replace(MESSAGES["reasoning"], message)
        pieces = [f"data: {event}\n\n", "data: [DONE]\n\n"]
        streamed = gateway.chat(model, "pieces", pieces=pieces)
        assert streamed.text == "".join(pieces).replace(MESSAGES["reasoning"], message)


def test_a_line_for_a_busy_worker(
    start_gateway: StartGateway, own_worker: FakeWorker, file: Path, clients: ThreadPoolExecutor
) -> None:
    """The second request waits, the third is told to come again; the second is served when the first ends."""
    gateway = started(start_gateway, file, ONE_AT_A_TIME % (1, 60))
    first = ask_held(clients, gateway)
    seen = own_worker.next()
    request = post(json.dumps(HELD).encode(), "connection: close")
    with gateway.connect(request) as second:
        third = gateway.http.post(CHAT, json=HELD)
        assert (third.status_code, third.json()["error"]["code"]) == (429, "overloaded")
        assert int(third.headers["retry-after"]) > 0
        assert own_worker.seen.empty()
        seen.go_on()
        own_worker.next().go_on()
        assert read_to_end(second).endswith(COMPLETION)
    assert first.result(WAIT_S).content == COMPLETION
    assert gateway.logged(first.result())["queue_ms"] == 0
    served = gateway.several(2, "request", status=200)
    assert [line["queue_ms"] > 0 for line in served] == [False, True]


def test_first_come_first_served(
    start_gateway: StartGateway, own_worker: FakeWorker, file: Path, clients: ThreadPoolExecutor
) -> None:
    """In the line, and one at a time."""
    gateway = started(start_gateway, file, ONE_AT_A_TIME % (5, 60))
    answers = []
    for number in range(4):
        body = HELD | {"number": number}
        answers.append(
            clients.submit(httpx.post, f"http://{gateway.address}{CHAT}", json=body, timeout=WAIT_S)
        )
        time.sleep(0.1)
    for number in range(4):
        seen = own_worker.next()
        assert json.loads(seen.body)["number"] == number
        assert own_worker.seen.empty()
        seen.go_on()
        answers[number].result(WAIT_S)


def test_a_wait_that_is_too_long(
    start_gateway: StartGateway, own_worker: FakeWorker, file: Path, clients: ThreadPoolExecutor
) -> None:
    """Ends in 503, and a request to come again."""
    gateway = started(start_gateway, file, ONE_AT_A_TIME % (3, 0.5))
    first = ask_held(clients, gateway)
    seen = own_worker.next()
    answer = gateway.http.post(CHAT, json=HELD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
    assert int(answer.headers["retry-after"]) > 0
    assert gateway.logged(answer)["queue_ms"] >= 500
    seen.go_on()
    assert first.result(WAIT_S).content == COMPLETION
    assert own_worker.seen.empty()
    assert gateway.chat("alpha").content == COMPLETION


def test_who_leaves_the_line_is_forgotten(
    start_gateway: StartGateway, own_worker: FakeWorker, file: Path, clients: ThreadPoolExecutor
) -> None:
    """Its place is free for another, and no worker is bothered with what it wanted."""
    gateway = started(start_gateway, file, ONE_AT_A_TIME % (1, 60))
    first = ask_held(clients, gateway)
    seen = own_worker.next()
    with gateway.connect(post(json.dumps(HELD | {"leaves": True}).encode())):
        assert gateway.http.post(CHAT, json=HELD).status_code == 429
    line = gateway.event("request", ending="client_gone")
    assert (line["status"], line["attempts"], line["worker"]) == (499, 0, None)
    stays = ask_held(clients, gateway)
    seen.go_on()
    served = own_worker.next()
    assert "leaves" not in json.loads(served.body)
    served.go_on()
    assert [answer.result(WAIT_S).status_code for answer in (first, stays)] == [200, 200]
    assert own_worker.seen.empty()


def test_a_second_worker_takes_from_the_line(
    start_gateway: StartGateway,
    start_worker: StartWorker,
    own_worker: FakeWorker,
    site: Site,
    file: Path,
    clients: ThreadPoolExecutor,
) -> None:
    """A worker that becomes ready serves who waits, though no other request has ended."""
    added = start_worker("alpha", health=503)
    site.declare("alpha-b", "alpha")
    site.attach({"alpha": [own_worker], "alpha-b": [added]})
    gateway = started(start_gateway, file, ONE_AT_A_TIME % (3, 60))
    first = ask_held(clients, gateway)
    seen = own_worker.next()
    second = ask_held(clients, gateway)
    time.sleep(0.2)
    added.health = 200
    added.next().go_on()
    assert second.result(WAIT_S).content == COMPLETION
    seen.go_on()
    assert first.result(WAIT_S).content == COMPLETION


def test_no_more_at_once_than_allowed(
    start_gateway: StartGateway, own_worker: FakeWorker, file: Path, clients: ThreadPoolExecutor
) -> None:
    """Also where a request is sent again because its connection had just been closed."""
    file.write_text(ONE_AT_A_TIME % (5, 60))
    gateway = start_gateway(GATEWAY_MODELS_FILE=file, GATEWAY_INTERVAL_S=30)  # no probe's connection closes
    assert gateway.chat("alpha").content == COMPLETION
    own_worker.forget()
    own_worker.close_on_reuse = True
    answers = [ask_held(clients, gateway) for _ in range(3)]
    for _ in answers:
        seen = own_worker.next()
        time.sleep(0.2)
        assert own_worker.seen.empty()
        seen.go_on()
    assert [answer.result(WAIT_S).status_code for answer in answers] == [200] * 3


def test_a_split(
    start_gateway: StartGateway, start_worker: StartWorker, own_worker: FakeWorker, site: Site, file: Path
) -> None:
    """Of two slugs that serve one name each gets its weight's share; one without weight gets none."""
    site.declare("alpha-b", "alpha")
    site.declare("alpha-c", "alpha")
    pools = {"alpha": [own_worker], "alpha-b": [start_worker("alpha")], "alpha-c": [start_worker("alpha")]}
    site.attach(pools)
    text = "models:\n  alpha:\n    split: {alpha: 3, alpha-b: 1, alpha-c: 0}\n"
    file.write_text(text)
    gateway = start_gateway(GATEWAY_MODELS_FILE=file, GATEWAY_SLOW_START_S=0)
    for slug in pools:
        gateway.wait_for(slug, "ready")
    got = Counter(gateway.logged(gateway.chat("alpha"))["slug"] for _ in range(80))
    assert set(got) == {"alpha", "alpha-b"}
    assert 0.6 < got["alpha"] / got.total() < 0.9
