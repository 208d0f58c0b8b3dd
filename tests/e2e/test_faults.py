"""What is done to containers while requests run: two replicas of real vLLM, and nobody gets a wrong answer."""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from docker.models.containers import Container

from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import GATEWAY, Stack, get, wait_for
from tests.twins import dialogues

pytestmark = pytest.mark.full
CHAT = f"{GATEWAY}/v1/chat/completions"
SHORT = {"model": MODEL, "messages": list(dialogues.ENGLISH.messages), "temperature": 0, "max_tokens": 4}
LONG: dict[str, object] = SHORT | {"max_tokens": 3000, "ignore_eos": True, "stream": True}
CLIENTS = 6
TIMEOUTS = {"GATEWAY_FIRST_BYTE_TIMEOUT_S": "5", "GATEWAY_IDLE_TIMEOUT_S": "5"}


@dataclass
class Load:
    """Clients that ask the same again and again. endings: of every request, `whole` or its error's code."""

    expected: str
    endings: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self.over.is_set():
                self.endings[self.ending(client.post(CHAT, json=SHORT))] += 1

    def ending(self, answer: httpx.Response) -> str:
        said = answer.json()
        if answer.status_code != 200:
            return str(said["error"]["code"])
        return "whole" if said["choices"][0]["message"]["content"] == self.expected else answer.text

    def wait_for_more(self, count: int = 20) -> None:
        """Until so many more have been answered whole."""
        wanted = self.endings["whole"] + count
        wait_for(f"{count} more answers", lambda: self.endings["whole"] >= wanted or None, 60)


@contextmanager
def load() -> Iterator[Load]:
    """CLIENTS at work, until the block ends; each request that was begun is awaited."""
    answer = httpx.post(CHAT, json=SHORT, timeout=60).json()
    running = Load(answer["choices"][0]["message"]["content"])
    threads = [threading.Thread(target=running.ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        running.wait_for_more()
        yield running
    finally:
        running.over.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def pair(stack: Stack) -> Iterator[Stack]:
    """Two replicas, and a gateway whose patience is short; one replica and the usual patience afterwards."""
    scaled = ["up", "-d", "--wait", "--wait-timeout", "300", SLUG, "gateway"]
    stack.compose(*scaled, "--scale", f"{SLUG}=2", **TIMEOUTS)
    yield stack
    stack.compose(*scaled, "--scale", f"{SLUG}=1")
    wait_for("one worker", lambda: states(stack) == ["ready"] or None, 60)


@pytest.fixture
def replicas(pair: Stack) -> list[Container]:
    """Both, ready."""
    wait_for("both ready", lambda: states(pair) == ["ready", "ready"] or None, 180)
    return [found for found in pair.containers() if found.labels["com.docker.compose.service"] == SLUG]


def states(stack: Stack) -> list[str]:
    return [worker["state"] for worker in stack.slug_status(SLUG)["workers"]]


def test_a_worker_that_is_stopped_costs_nobody_anything(pair: Stack, replicas: list[Container]) -> None:
    """SIGTERM: what it has begun it finishes, what it refuses goes to the other."""
    try:
        with load() as running:
            replicas[0].stop(timeout=60)
            running.wait_for_more()
    finally:
        replicas[0].start()
    assert set(running.endings) == {"whole"}


def test_a_worker_that_is_killed_costs_what_it_had_begun(pair: Stack, replicas: list[Container]) -> None:
    """SIGKILL: at most the requests it had, each a 502; everything else is answered, and it comes back by itself."""
    with load() as running:
        os.kill(replicas[0].attrs["State"]["Pid"], signal.SIGKILL)
        wait_for("the gateway to notice", lambda: states(pair).count("ready") < 2 or None, 10, every_s=0.1)
        running.wait_for_more()
    assert set(running.endings) <= {"whole", "upstream_disconnected"}
    assert running.endings["upstream_disconnected"] <= CLIENTS


def test_a_worker_that_stands_still_is_passed_over(pair: Stack, replicas: list[Container]) -> None:
    """Paused: it takes connections and says nothing. What it has ends in time, and it gets no more."""
    with load() as running:
        replicas[0].pause()
        try:
            wait_for("the gateway to notice", lambda: states(pair).count("ready") < 2 or None, 30)
            running.wait_for_more(40)
        finally:
            replicas[0].unpause()
    assert set(running.endings) <= {"whole", "worker_timeout", "upstream_disconnected"}
    assert running.endings["whole"] > 10 * (running.endings.total() - running.endings["whole"])


def test_a_worker_that_is_cut_off_breaks_its_stream(pair: Stack, replicas: list[Container]) -> None:
    """Its network goes in the middle of a stream: an error event in time, no end that looks like one, no word twice."""
    network = pair.client.networks.get(f"{replicas[0].labels['com.docker.compose.project']}_workers")
    with httpx.stream("POST", CHAT, json=LONG, timeout=60) as answer:
        lines = answer.iter_lines()
        seen = [next(lines) for _ in range(20)]
        holder = next(one for one in replicas if is_busy(pair, one))
        aliases = holder.attrs["NetworkSettings"]["Networks"][network.name]["Aliases"]
        network.disconnect(holder)
        try:
            with pytest.raises(httpx.RemoteProtocolError):
                seen += lines
        finally:
            network.connect(holder, aliases=aliases)
    events = [json.loads(line.removeprefix("data: ")) for line in seen if line]
    assert events[-1]["error"]["code"] in ("worker_timeout", "upstream_disconnected")
    assert all("error" not in event for event in events[:-1])


def is_busy(stack: Stack, replica: Container) -> bool:
    """Whether the gateway has a request there."""
    networks = replica.attrs["NetworkSettings"]["Networks"].values()
    addresses = {f"{network['IPAddress']}:8000" for network in networks}
    workers = stack.slug_status(SLUG)["workers"]
    return any(worker["in_flight"] for worker in workers if worker["address"] in addresses)


def test_a_gateway_that_is_stopped_finishes_its_streams(pair: Stack, replicas: list[Container]) -> None:
    """SIGTERM in the middle of twenty: every one comes to its end, nobody else is let in, exit code 0."""
    ends: list[str] = []
    body = LONG | {"max_tokens": 300}
    begun = threading.Barrier(21)

    def read() -> None:
        with httpx.stream("POST", CHAT, json=body, timeout=120) as answer:
            lines = answer.iter_lines()
            next(lines)
            begun.wait(60)
            ends.append([line for line in lines if line][-1])

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    begun.wait(60)
    gateway = pair.container("gateway")
    gateway.kill("SIGTERM")
    wait_for("the door to close", lambda: get(f"{GATEWAY}/ready")[0] == 0 or None, 10, every_s=0.1)
    with pytest.raises(httpx.TransportError):
        httpx.post(CHAT, json=SHORT, timeout=5)
    for thread in threads:
        thread.join()
    assert ends == ["data: [DONE]"] * 20
    assert gateway.wait(timeout=60)["StatusCode"] == 0
    gateway.start()
    pair.wait_ready()
