"""Keys with limits, over real processes: exact for all of them together, settled by what workers say, and told as
OpenAI's clients expect."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.config.api_keys import hash_key
from gateway.usage.store import month_totals
from tests.fake_worker import FakeWorker, Seen
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post, read_to_end, wait_until

CLIENTS, PROCESSES = 200, 4
DOCUMENT = '{"object":"chat.completion","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}'


def entry(name: str, **limits: int) -> str:
    """An entry whose key is `sk-` and its name."""
    written = ", ".join(f"{limit}: {most}" for limit, most in limits.items())
    return f"  {name}: {{sha256: [{hash_key(b'sk-' + name.encode())}], limits: {{{written}}}}}\n"


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}


def chat(gateway: Gateway, name: str, **body: Any) -> httpx.Response:
    return gateway.http.post(CHAT, json=ask("alpha") | body, headers=bearer(name))


def using(prompt: int, completion: int) -> dict[str, Any]:
    """The script of an answer that tells this usage."""
    return {"script": {"do": "pieces", "json": True, "pieces": [DOCUMENT % (prompt, completion)]}}


def used(gateway: Gateway, name: str) -> dict[str, float]:
    """What the metrics say a key has used, by limit."""
    limits = ("rpm", "tpm_in", "tpm_out", "concurrency", "monthly_tokens")
    return {one: gateway.metric("gateway_key_limit_used", key=name, limit=one) for one in limits}


def all_ready(gateway: Gateway, processes: int) -> None:
    wait_until(lambda: len(gateway.events("worker_state", to="ready")) == processes, "all ready")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


async def crowd(gateway: Gateway, names: list[str], each: int) -> Counter[tuple[str, int, str]]:
    """CLIENTS at the same time, of these keys in turn, each with `each` requests, every one over a connection of its
    own; what they got, by key, status and code."""
    found: Counter[tuple[str, int, str]] = Counter()

    async def client(http: httpx.AsyncClient, name: str) -> None:
        for _ in range(each):
            answer = await http.post(CHAT, json=ask("alpha"), headers=bearer(name))
            code = "" if answer.status_code == 200 else answer.json()["error"]["code"]
            found[name, answer.status_code, code] += 1

    async with fresh_connections(gateway) as http:
        await asyncio.gather(*(client(http, names[number % len(names)]) for number in range(CLIENTS)))
    return found


def fresh_connections(gateway: Gateway) -> httpx.AsyncClient:
    """A client that opens a connection for each request, so that the kernel spreads them over the processes."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=gateway.url, timeout=40, trust_env=False, limits=limits)


def test_limits_are_exact_over_all_processes(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """200 clients of ten keys, over four processes: each key gets its limit to the request, and what is refused reaches
    no worker. The metrics tell it once, not once for each process."""
    names = [f"team-{number}" for number in range(10)]
    keys.write_text("keys:\n" + "".join(entry(name, rpm=20 + n) for n, name in enumerate(names)))
    gateway = start_gateway(GATEWAY_PROCESSES=PROCESSES, GATEWAY_API_KEYS_FILE=keys)
    all_ready(gateway, PROCESSES)
    begun = time.monotonic()
    found = asyncio.run(crowd(gateway, names, each=5))
    told = [used(gateway, name)["rpm"] for name in names]
    minutes = minutes_since(begun)
    for n, name in enumerate(names):
        passed, refused = found[name, 200, ""], found[name, 429, "rate_limited"]
        assert passed + refused == 100
        assert 20 + n <= passed <= (20 + n) * minutes
        assert told[n] <= 20 + n
        assert minutes > 1 or told[n] == 20 + n
        assert gateway.metric("gateway_key_limit", key=name, limit="rpm") == 20 + n
        assert gateway.metric("gateway_key_limit_refusals_total", key=name, limit="rpm") == refused
    assert own_worker.seen.qsize() == sum(found[name, 200, ""] for name in names)


def minutes_since(begun: float) -> int:
    """In how many minutes a limit may have been used since: one, unless the host is very slow."""
    return 1 + int((time.monotonic() - begun) // 60)


def hold(gateway: Gateway, name: str) -> socket.socket:
    """A request that its worker holds, over a connection of its own."""
    body = json.dumps(ask("alpha", "json", hold=True)).encode()
    return gateway.connect(post(body, f"authorization: Bearer sk-{name}", "connection: close"))


def asked_in_all(worker: FakeWorker, count: int) -> list[Seen]:
    return [worker.next() for _ in range(count)]


def test_a_process_that_is_killed_gives_back_what_it_held(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """Requests at a time are exact over the processes; when one is killed under load, those that it had are free again,
    the others still count, and nothing else of the key is forgotten."""
    keys.write_text("keys:\n" + entry("a", concurrency=12, rpm=1000, monthly_tokens=10**9))
    gateway = start_gateway(GATEWAY_PROCESSES=2, GATEWAY_API_KEYS_FILE=keys)
    all_ready(gateway, 2)
    for _ in range(3):
        held = [hold(gateway, "a") for _ in range(12)]
        seen = asked_in_all(own_worker, 12)
        refused = [chat(gateway, "a") for _ in range(4)]
        assert {one.json()["error"]["code"] for one in refused} == {"rate_limited"}
        assert used(gateway, "a")["concurrency"] == 12
        lost = children(gateway)[0]
        os.kill(lost, signal.SIGKILL)
        wait_until(lambda seen=seen: any(one.gone.is_set() for one in seen), "its requests to be cut")
        wait_until(lambda: gateway.metric("gateway_processes") == 2, "two again")
        wait_until(
            lambda seen=seen: used(gateway, "a")["concurrency"] == sum(not one.gone.is_set() for one in seen),
            "what it held given back",
        )
        for one in seen:
            one.go_on()
        for connection in held:
            connection.close()
        wait_until(lambda: used(gateway, "a")["concurrency"] == 0, "all given back")


def children(gateway: Gateway) -> list[int]:
    path = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def test_processes_killed_under_load_leak_nothing(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """Requests without pause while processes are killed: at the end no request is in flight, no more were let through
    than the limit, and the gateway answers."""
    keys.write_text("keys:\n" + entry("a", rpm=100_000, concurrency=100) + entry("b", rpm=50))
    gateway = start_gateway(GATEWAY_PROCESSES=2, GATEWAY_API_KEYS_FILE=keys)
    all_ready(gateway, 2)

    async def load(http: httpx.AsyncClient, name: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await http.post(CHAT, json=ask("alpha"), headers=bearer(name))
            except httpx.TransportError:
                await asyncio.sleep(0.01)

    async def run() -> None:
        stop, http = asyncio.Event(), fresh_connections(gateway)
        tasks = [asyncio.create_task(load(http, name, stop)) for name in ("a", "b") * 4]
        for number in range(4):
            await asyncio.sleep(0.3)
            os.kill(children(gateway)[number % 2], signal.SIGKILL)
            while len(gateway.events("process_listening")) < 3 + number:  # noqa: ASYNC110  # another process' event
                await asyncio.sleep(0.02)
        stop.set()
        await asyncio.gather(*tasks)
        await http.aclose()

    begun = time.monotonic()
    asyncio.run(run())
    minutes = minutes_since(begun)
    wait_until(lambda: gateway.metric("gateway_processes") == 2, "two again")
    assert used(gateway, "a")["concurrency"] == 0
    assert chat(gateway, "a").status_code == 200
    let_through = Counter(line["key"] for line in gateway.events("request", status=200))
    assert 0 < let_through["b"] <= 50 * minutes
    assert used(gateway, "b")["rpm"] <= 50


def test_openais_client_is_told_when_to_come_again(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """RateLimitError with the headers that it waits by; an answer tells what is left; a month that is used up is not
    tried again."""
    keys.write_text("keys:\n" + entry("a", rpm=2, tpm_in=1000, tpm_out=1000) + entry("b", monthly_tokens=1))
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    client = gateway.openai.with_options(api_key="sk-a")
    messages: Any = [{"role": "user", "content": "hello"}]

    def create(by: openai.OpenAI, most: int = 2) -> Any:
        return by.chat.completions.with_raw_response.create(model="alpha", messages=messages, max_tokens=most)

    told = create(client).headers
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("2", "1")
    assert told["x-ratelimit-limit-tokens"] == "1000"
    assert told["x-ratelimit-reset-requests"] == "1m0.25s"
    create(client)
    with pytest.raises(openai.RateLimitError) as caught:
        create(client)
    error = caught.value
    assert (error.code, error.type) == ("rate_limited", "requests")
    told = error.response.headers
    assert 58 <= int(told["retry-after"]) <= 61
    assert 58_000 <= int(told["retry-after-ms"]) <= 60_250
    assert told["x-ratelimit-remaining-requests"] == "0"
    assert "x-should-retry" not in told
    with pytest.raises(openai.RateLimitError) as caught:
        create(gateway.openai.with_options(api_key="sk-b", max_retries=3))
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    assert caught.value.response.headers["x-should-retry"] == "false"
    gateway.event("request", code="insufficient_quota")
    assert chat(gateway, "a").status_code == 429
    gateway.several(2, "request", code="rate_limited")
    assert len(gateway.events("request", code="insufficient_quota")) == 1


def test_tokens_are_those_that_workers_tell(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """Of answers, of streams whose client asked for no usage, and of none that no worker gave."""
    keys.write_text("keys:\n" + entry("a", rpm=100, tpm_in=10_000, tpm_out=10_000, monthly_tokens=10**6))
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    assert chat(gateway, "a", **using(30, 70)).status_code == 200
    total = {"rpm": 1, "tpm_in": 30, "tpm_out": 70, "concurrency": 0, "monthly_tokens": 100}
    assert used(gateway, "a") == total
    told = 'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6}}\n\ndata: [DONE]\n\n'
    answer = chat(gateway, "a", stream=True, script={"do": "pieces", "pieces": [told]})
    assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (200, "98")
    total = {"rpm": 2, "tpm_in": 35, "tpm_out": 76, "concurrency": 0, "monthly_tokens": 111}
    wait_until(lambda: used(gateway, "a") == total, "settled")
    assert chat(gateway, "a", script={"do": "error", "status": 400}).status_code == 400
    assert chat(gateway, "a", script={"do": "close"}).status_code == 502
    assert used(gateway, "a") == total | {"rpm": 4}
    assert chat(gateway, "a", model="nobody").status_code == 404  # refused by the gateway
    assert used(gateway, "a") == total | {"rpm": 4}


def test_tokens_of_a_client_that_leaves_stay_reserved(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """A worker was at work for it, and has not said how much: or whoever leaves early would pay nothing."""
    keys.write_text("keys:\n" + entry("a", tpm_out=1000, concurrency=1))
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    body = json.dumps(ask("alpha", "json", hold=True) | {"max_tokens": 600}).encode()
    connection = gateway.connect(post(body, "authorization: Bearer sk-a"))
    own_worker.next()
    assert (used(gateway, "a")["tpm_out"], used(gateway, "a")["concurrency"]) == (600, 1)
    connection.close()
    wait_until(lambda: used(gateway, "a")["concurrency"] == 0, "the end")
    assert used(gateway, "a")["tpm_out"] == 600
    refused = chat(gateway, "a", max_tokens=500)
    assert refused.json()["error"]["type"] == "tokens"
    assert "this request may need 500 (tpm_out)" in refused.json()["error"]["message"]
    assert chat(gateway, "a", max_tokens=400).status_code == 200


def test_a_request_in_the_queue_counts_as_one_at_a_time(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path, tmp_path: Path
) -> None:
    """It has reserved, and gives all back if it leaves the queue unsent."""
    keys.write_text("keys:\n" + entry("a", concurrency=2, rpm=100, tpm_out=1000))
    models = tmp_path / "models.yaml"
    models.write_text("models:\n  alpha:\n    in_flight_per_worker: 1\n    queue: {most: 10, wait_s: 100}\n")
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys, GATEWAY_MODELS_FILE=models)
    first = hold(gateway, "a")
    seen = own_worker.next()
    waiting = hold(gateway, "a")
    wait_until(lambda: gateway.metric("gateway_queue_length", model="alpha") == 1, "one waits")
    assert chat(gateway, "a").status_code == 429
    assert used(gateway, "a")["tpm_out"] == 2 * 257
    waiting.close()
    wait_until(lambda: used(gateway, "a")["concurrency"] == 1, "the end")
    assert (used(gateway, "a")["rpm"], used(gateway, "a")["tpm_out"]) == (1, 257)
    seen.go_on()
    first.close()


def test_limits_that_change_count_at_once_and_forget_nothing(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """In all processes, without a restart."""
    keys.write_text("keys:\n" + entry("a", rpm=2))
    gateway = start_gateway(GATEWAY_PROCESSES=2, GATEWAY_API_KEYS_FILE=keys)
    all_ready(gateway, 2)

    def passes() -> int:
        with gateway.client() as client:
            return client.post(CHAT, json=ask("alpha"), headers=bearer("a")).status_code

    assert [passes() for _ in range(4)] == [200, 200, 429, 429]
    keys.write_text("keys:\n" + entry("a", rpm=5))
    wait_until(lambda: len(gateway.events("keys_read")) == 2, "the new limits")
    assert sorted(passes() for _ in range(8)) == [200] * 3 + [429] * 5
    keys.write_text("keys:\n" + entry("a", concurrency=5))
    wait_until(lambda: len(gateway.events("keys_read")) == 4, "no limit of requests")
    assert [passes() for _ in range(4)] == [200] * 4
    keys.write_text("keys:\n" + entry("a", rpm=3))
    wait_until(lambda: len(gateway.events("keys_read")) == 6, "a lower limit")
    assert {passes() for _ in range(4)} == {429}


def test_keys_without_limits_are_not_touched(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """Neither those of one line nor those without `limits`: no header, no series."""
    keys.write_text(f"keys:\n  a: {{sha256: [{hash_key(b'sk-a')}]}}\n")
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    answer = chat(gateway, "a")
    assert (answer.status_code, [name for name in answer.headers if "ratelimit" in name]) == (200, [])
    assert "gateway_key_limit_used{" not in gateway.ops.get("/metrics").text


def test_which_routes_count(start_gateway: StartGateway, own_worker: FakeWorker, keys: Path) -> None:
    """Whatever is sent to a worker is a request; pages of the gateway's own are not."""
    keys.write_text("keys:\n" + entry("a", rpm=3, tpm_in=1000, tpm_out=1000))
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    for path in ("/v1/models", "/v1/models/alpha", "/health", "/ready"):
        answer = gateway.http.get(path, headers=bearer("a"))
        assert (answer.status_code, "x-ratelimit-limit-requests" in answer.headers) == (200, False)
    body = {"model": "alpha", "prompt": "x" * 100, "script": {"do": "json"}}
    for path in ("/v1/tokenize", "/v1/messages/count_tokens"):
        assert gateway.http.post(path, json=body, headers=bearer("a")).status_code == 200
    assert used(gateway, "a")["rpm"] == 2
    stored = gateway.http.get("/v1/responses/resp_1", headers=bearer("a"))
    assert stored.headers["x-ratelimit-remaining-requests"] == "0"
    again = gateway.http.post("/v1/messages", json=body, headers=bearer("a"))
    assert (again.status_code, again.json()["error"]["type"]) == (429, "rate_limit_error")


def test_one_at_a_time_is_one_after_another(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path
) -> None:
    """Requests that a client sends without waiting are answered in turn, so they are one at a time."""
    keys.write_text("keys:\n" + entry("a", concurrency=1))
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys)
    request = post(json.dumps(ask("alpha")).encode(), "authorization: Bearer sk-a")
    last = post(json.dumps(ask("alpha")).encode(), "authorization: Bearer sk-a", "connection: close")
    connection = gateway.connect(request * 4 + last)
    assert read_to_end(connection).count(b"HTTP/1.1 200 ") == 5
    connection.close()


def test_a_monthly_limit_counts_what_came_before_it(
    start_gateway: StartGateway, own_worker: FakeWorker, keys: Path, tmp_path: Path
) -> None:
    """A key that had no limits gets one while the gateway runs: the month's tokens are those of the record."""
    keys.write_text(f"keys:\n  a: {{sha256: [{hash_key(b'sk-a')}]}}\n")
    gateway = start_gateway(GATEWAY_API_KEYS_FILE=keys, GATEWAY_STATE_DIR=tmp_path)
    all_ready(gateway, 1)
    assert chat(gateway, "a", **using(300, 700)).status_code == 200
    wait_until(lambda: month_totals(tmp_path) == {"a": 1000}, "the record")
    keys.write_text("keys:\n" + entry("a", monthly_tokens=1001))
    wait_until(lambda: gateway.events("keys_read"), "the new limit")
    wait_until(lambda: used(gateway, "a")["monthly_tokens"] == 1000, "what was used before")
    assert chat(gateway, "a", max_tokens=500).json()["error"]["code"] == "insufficient_quota"
