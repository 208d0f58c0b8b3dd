"""Keys of several classes and weights at one worker: who goes first, what is kept free, and what the worker is told."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config.api_keys import CLASS_SPAN, Priority, hash_key
from tests.fake_worker import COMPLETION, WAIT_S, FakeWorker, Seen
from tests.integration.gateway.conftest import StartGateway, StartWorker
from tests.integration.gateway.harness import CHAT, Gateway, Site, ask, wait_until

KEYS = {
    "chat": "priority: interactive", "work": "priority: normal", "batch": "priority: bulk",
    "one": "priority: bulk, weight: 1", "three": "priority: bulk, weight: 3",
}  # fmt: skip
PLACES = "defaults: {in_flight_per_worker: %d, queue: {most: %d, wait_s: 60}, reserved: {interactive: %g, normal: 0}}\n"
HELD = ask("alpha", "json", hold=True)


def keys_of(*names: str) -> str:
    lines = [f"  {name}: {{sha256: [{hash_key(b'sk-' + name.encode())}], {KEYS[name]}}}\n" for name in names]
    return "".join(["keys:\n", *lines])


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}


class Start:
    """Starts a gateway with these keys and places."""

    def __init__(self, start: StartGateway, folder: Path) -> None:
        self._start = start
        self._folder = folder

    def __call__(
        self, *names: str, places: int = 4, most: int = 100, reserved: float = 0.25, **settings: object
    ) -> Gateway:
        keys, models = self._folder / "keys", self._folder / "models.yaml"
        keys.write_text(keys_of(*names))
        models.write_text(PLACES % (places, most, reserved))
        return self._start(GATEWAY_API_KEYS_FILE=keys, GATEWAY_MODELS_FILE=models, **settings)


@pytest.fixture
def start(start_gateway: StartGateway, tmp_path: Path) -> Start:
    return Start(start_gateway, tmp_path)


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


class Held:
    """Requests that the worker holds, and those that wait in the gateway."""

    def __init__(self, gateway: Gateway, worker: FakeWorker, clients: ThreadPoolExecutor) -> None:
        self._gateway = gateway
        self._worker = worker
        self._clients = clients
        self._running: list[Seen] = []
        self._sent: list[Future[httpx.Response]] = []

    def send(self, name: str, **more: object) -> Future[httpx.Response]:
        future = self._clients.submit(
            httpx.post, f"{self._gateway.url}{CHAT}", json=HELD | {"user": name} | more, headers=bearer(name),
            timeout=WAIT_S, trust_env=False,
        )  # fmt: skip
        self._sent.append(future)
        return future

    def run(self, name: str, **more: object) -> Future[httpx.Response]:
        """A request that is sent to the worker at once."""
        future = self.send(name, **more)
        self.took(name)
        return future

    def queue(self, name: str, **more: object) -> Future[httpx.Response]:
        """A request that waits in the gateway."""
        before = self.waiting()
        future = self.send(name, **more)
        wait_until(lambda: self.waiting() == before + 1, f"{name} in the queue")
        return future

    def waiting(self, **labels: str) -> float:
        return self._gateway.metric("gateway_queue_length", model="alpha", **labels)

    def took(self, name: str) -> None:
        """The worker has got one of `name`, and nothing else."""
        seen = self._worker.next()
        assert json.loads(seen.body)["user"] == name
        self._running.append(seen)
        assert self._worker.seen.empty()

    def end(self, name: str) -> None:
        """The first request of `name` that the worker has ends."""
        seen = next(one for one in self._running if json.loads(one.body)["user"] == name)
        self._running.remove(seen)
        seen.go_on()

    def end_all(self) -> None:
        """All that the worker has or gets ends, until every request is answered."""
        for seen in self._running:
            seen.go_on()
        wait_until(self._end_next, "an answer to every request")

    def _end_next(self) -> bool:
        """Let what the worker has got since end. Whether all are answered."""
        while not self._worker.seen.empty():
            self._worker.next().go_on()
        return all(future.done() for future in self._sent)


@pytest.fixture
def gateway(start: Start) -> Gateway:
    return start("chat", "work", "batch")


@pytest.fixture
def held(gateway: Gateway, own_worker: FakeWorker, clients: ThreadPoolExecutor) -> Held:
    return Held(gateway, own_worker, clients)


def test_a_kept_place_is_free_for_a_higher_class(held: Held) -> None:
    """Bulk has taken what it may, and more of it waits: an interactive request is sent at once; the next one goes
    first when a bulk one ends."""
    bulk = [held.run("batch") for _ in range(3)]
    bulk += [held.queue("batch") for _ in range(2)]
    chat = [held.run("chat"), held.queue("chat")]
    held.end("batch")
    held.took("chat")
    held.end("chat")
    held.end("chat")
    assert [one.result(WAIT_S).content for one in chat] == [COMPLETION] * 2
    held.took("batch")
    assert held.waiting(priority="bulk") == 1
    held.end_all()
    assert {one.result(WAIT_S).status_code for one in bulk} == {200}


def test_a_client_may_lower_its_class(held: Held) -> None:
    """`service_tier: flex` goes behind normal requests that came later."""
    for _ in range(3):
        held.run("work")
    flex = held.queue("work", service_tier="flex")
    later = held.queue("work")
    assert (held.waiting(priority="bulk"), held.waiting(priority="normal")) == (1, 1)
    held.end("work")
    held.took("work")
    held.end("work")
    held.took("work")
    held.end_all()
    assert [one.result(WAIT_S).status_code for one in (flex, later)] == [200, 200]


def test_a_full_queue_refuses_who_has_most_of_the_lowest_class(
    start: Start, own_worker: FakeWorker, clients: ThreadPoolExecutor
) -> None:
    """429, as for one that came too late; who took its place is served."""
    gateway = start("chat", "work", "batch", places=1, most=2)
    held = Held(gateway, own_worker, clients)
    held.run("work")
    first, second = held.queue("batch"), held.queue("batch")
    chat = held.send("chat")
    refused = second.result(WAIT_S)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) > 0
    assert gateway.logged(refused)["queue_ms"] >= 0
    held.end("work")
    held.took("chat")
    held.end("chat")
    held.took("batch")
    held.end("batch")
    assert [one.result(WAIT_S).status_code for one in (chat, first)] == [200, 200]
    assert gateway.metric("gateway_queue_wait_seconds_count", model="alpha", priority="bulk") == 2


async def starts(gateway: Gateway, worker: FakeWorker, counts: dict[str, int], most: int) -> Counter[str]:
    """How many of the first starts from a queue each key gets, which has so many requests of each. It is full before
    the first one is let through, so it does not matter how fast anything here is."""
    places = 4

    async def client(http: httpx.AsyncClient, name: str) -> None:
        answer = await http.post(CHAT, json=HELD | {"user": name}, headers=bearer(name))
        assert answer.status_code == 200, answer.text

    def let_through() -> list[str]:
        waiting = sum(counts.values()) - places
        wait_until(lambda: gateway.metric("gateway_queue_length", model="alpha") == waiting, "a full queue")
        seen = []
        for _ in range(sum(counts.values())):
            seen.append(worker.next())
            if len(seen) >= places:
                seen[len(seen) - places].go_on()
        for late in seen[1 - places :]:
            late.go_on()
        return [json.loads(one.body)["user"] for one in seen]

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=gateway.url, timeout=WAIT_S, trust_env=False, limits=limits
    ) as http:
        asking = [client(http, name) for name, count in counts.items() for _ in range(count)]
        found, *_ = await asyncio.gather(asyncio.to_thread(let_through), *asking)
    return Counter(found[places : places + most])


def test_shares_follow_weights(start: Start, own_worker: FakeWorker) -> None:
    """Of keys of one class whose requests are alike."""
    found = asyncio.run(starts(start("one", "three"), own_worker, {"one": 30, "three": 40}, 40))
    assert found["three"] == pytest.approx(30, abs=1)


def test_bulk_keeps_a_tenth(start: Start, own_worker: FakeWorker) -> None:
    """While interactive requests would take every place."""
    gateway = start("chat", "batch", reserved=0)
    found = asyncio.run(starts(gateway, own_worker, {"chat": 50, "batch": 10}, 40))
    assert found["batch"] == pytest.approx(4, abs=1)


async def flood(gateway: Gateway, name: str, each: int, until: asyncio.Event) -> None:
    """Ask with so many requests of a key at a time."""

    async def client(http: httpx.AsyncClient) -> None:
        while not until.is_set():
            await http.post(CHAT, json=ask("alpha", "sse", chunks=2, delay_s=0.05), headers=bearer(name))

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=gateway.url, timeout=WAIT_S, trust_env=False, limits=limits
    ) as http:
        await asyncio.gather(*[client(http) for _ in range(each)])


def test_interactive_requests_never_wait_for_bulk(start: Start, own_worker: FakeWorker) -> None:
    """One at a time, beside a bulk key that takes all it may: none of them was in the queue."""
    gateway = start("chat", "batch", places=8)

    async def both() -> list[str]:
        over, ids = asyncio.Event(), []
        bulk = asyncio.create_task(flood(gateway, "batch", 30, over))
        async with httpx.AsyncClient(base_url=gateway.url, timeout=WAIT_S, trust_env=False) as http:
            for _ in range(30):
                answer = await http.post(CHAT, json=ask("alpha", "sse", chunks=2), headers=bearer("chat"))
                ids.append(answer.headers["x-request-id"])
        over.set()
        await bulk
        return ids

    ids = asyncio.run(both())
    assert [gateway.event("request", id=one)["queue_ms"] for one in ids] == [0] * len(ids)
    assert gateway.metric("gateway_queue_wait_seconds_count", model="alpha", priority="interactive") == 0
    assert gateway.metric("gateway_queue_wait_seconds_count", model="alpha", priority="bulk") > 0


def priority_at(worker: FakeWorker) -> str | None:
    """What the header said that vLLM follows."""
    return {name.lower(): value for name, value in worker.next().headers}.get("x-vllm-priority")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
def test_the_engine_is_told_the_class(gateway: Gateway, own_worker: FakeWorker, path: str) -> None:
    """With what the client orders among its own, and whatever headers it sends."""
    for name, priority in (
        ("chat", Priority.INTERACTIVE),
        ("work", Priority.NORMAL),
        ("batch", Priority.BULK),
    ):
        for own in (None, 0, 7, 1_000_000):
            body: dict[str, Any] = {"model": "alpha", "max_tokens": 5, "priority": own}
            headers = bearer(name) | {"X-Vllm-Priority": "-1"}
            assert gateway.http.post(path, json=body, headers=headers).status_code == 200
            assert priority_at(own_worker) == str(priority * CLASS_SPAN + min(own or 0, CLASS_SPAN - 1))
    gateway.http.post(path, json={"model": "alpha", "service_tier": "flex"}, headers=bearer("work"))
    assert priority_at(own_worker) == str(2 * CLASS_SPAN)


def test_without_a_key_file_nothing_is_added(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """The worker gets the client's bytes, and its own priority."""
    gateway = start_gateway()
    body = json.dumps({"model": "alpha", "priority": 5, "service_tier": "flex"}).encode()
    for path in (CHAT, "/v1/embeddings"):
        assert gateway.http.post(path, content=body).status_code == 200
        seen = own_worker.next()
        assert seen.body == body
        assert "x-vllm-priority" not in {name.lower() for name, _ in seen.headers}


@pytest.mark.parametrize("setting", ["key", "off"])
def test_each_key_has_a_prefix_cache_of_its_own(start: Start, own_worker: FakeWorker, setting: str) -> None:
    """Unless keys are to share it."""
    gateway = start("chat", "work", GATEWAY_CACHE_SALT=setting)
    salts = []
    for name in ("chat", "work", "chat"):
        gateway.http.post(CHAT, json=ask("alpha"), headers=bearer(name))
        salts.append(json.loads(own_worker.next().body).get("cache_salt"))
    if setting == "off":
        assert salts == [None] * 3
    else:
        assert salts[0] == salts[2] != salts[1]
        assert all(len(salt) == 43 for salt in salts)


def test_prefix_affinity_knows_keys_apart(
    start_worker: StartWorker, own_worker: FakeWorker, site: Site, tmp_path: Path
) -> None:
    """One key's prompt draws that key's requests to the worker that has it, and no other key's."""
    other = start_worker("alpha")
    site.attach({"alpha": [own_worker, other]})
    (tmp_path / "keys").write_text(keys_of("chat", "work"))
    (tmp_path / "models.yaml").write_text("defaults: {policy: {prefix_affinity: {block_bytes: 64}}}\n")
    started = Gateway(
        site, GATEWAY_API_KEYS_FILE=tmp_path / "keys", GATEWAY_MODELS_FILE=tmp_path / "models.yaml"
    )
    try:
        started.wait_for("alpha", "ready", "ready")
        body = {"model": "alpha", "messages": [{"role": "user", "content": "x" * 500}]}
        workers: dict[str, list[object]] = {"chat": [], "work": []}
        for name in ("chat", "work") * 4:
            answer = started.http.post(CHAT, json=body, headers=bearer(name))
            workers[name].append(started.logged(answer)["worker"])
        assert [len(set(found)) for found in workers.values()] == [1, 1]
        assert workers["chat"][0] != workers["work"][0]
    finally:
        started.terminate()
        assert started.end() == (0, "")
