"""The ops port of a running launcher: how a start goes, what it usually takes, what is in its way."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.launcher.harness import PATIENCE_S, Site, Worker, free_port

Start = Callable[..., Worker]


@pytest.fixture
def ops(site: Site) -> int:
    """The site's ops port."""
    port = free_port()
    site.settings["LAUNCHER_OPS_PORT"] = str(port)
    return port


def get(port: int, target: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{target}", timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def state(port: int) -> Any:
    return json.loads(get(port, "/state"))


def test_a_start_and_the_next_one_with_an_estimate(site: Site, start: Start, ops: int) -> None:
    """The first start knows nothing; the second knows what the first one took, phase by phase."""
    site.publish()
    first = start()
    first.wait_event("phase", phase="ready")
    assert state(ops)["phase"] == "ready"
    usual = state(ops)["usual"]
    assert {"starting", "loading", "warm-up"} <= usual.keys()
    assert 'launcher_phase{phase="ready"} 1' in get(ops, "/metrics")
    assert 'launcher_disk_free_bytes{disk="weights"}' in get(ops, "/metrics")
    first.stop()
    site.options = ("--loads-s", "30")
    second = start()
    second.wait_event("phase", phase="starting")
    assert 0 < state(ops)["left_s"] <= sum(usual.values()) + 1
    second.stop()


def test_what_is_in_the_way(site: Site, start: Start, ops: int) -> None:
    worker = start()
    worker.wait_event("weights-not-ready")
    assert state(ops)["trouble"] == "weights-missing"
    assert 'launcher_trouble{trouble="weights-missing"} 1' in get(ops, "/metrics")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(ops, "/other")


def test_a_port_that_is_taken_stops_no_worker(site: Site, start: Start, ops: int) -> None:
    """It is said once, and the worker serves without."""
    site.publish()
    with socket.create_server(("", ops)):
        worker = start()
        assert worker.wait_event("no-ops-port")["port"] == ops
        worker.wait_event("phase", phase="ready")


@contextmanager
def crowd(port: int, count: int) -> Iterator[Crowd]:
    """So many clients, each of which sends a byte of its request every tenth of a second, and comes back if refused."""
    found = Crowd(port, count)
    runner = threading.Thread(target=found.run)
    runner.start()
    try:
        yield found
    finally:
        found.over = True
        runner.join()


class Crowd:
    def __init__(self, port: int, count: int) -> None:
        self.port, self.count, self.over, self.rounds = port, count, False, 0

    def run(self) -> None:
        clients: list[socket.socket] = []
        while not self.over:
            clients = [client for client in clients if self._sends(client)]
            while len(clients) < self.count and not self.over:
                clients.append(socket.socket())
                clients[-1].setblocking(False)
                clients[-1].connect_ex(("127.0.0.1", self.port))
            self.rounds += 1
            time.sleep(0.1)
        for client in clients:
            client.close()

    def _sends(self, client: socket.socket) -> bool:
        try:
            client.send(b"G")
        except BlockingIOError:
            return True
        except OSError:
            client.close()
            return False
        return True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@pytest.mark.parametrize("descriptors", [40, 1024])
def test_a_crowd_that_drips_ends_nothing(site: Site, start: Start, ops: int, descriptors: int) -> None:
    """600 clients at once, with a few descriptors and with many: vLLM serves, /state answers, SIGTERM is obeyed."""
    site.publish()
    site.settings["LAUNCHER_STOP_GRACE_S"] = "2"
    worker = start(prefix=("prlimit", f"--nofile={descriptors}"))
    worker.wait_event("phase", phase="ready")
    with crowd(ops, 600) as found:
        until(lambda: found.rounds > 10)
        assert site.get("/health") is None
        if descriptors > 64:
            assert {state(ops)["phase"] for _ in range(20)} == {"ready"}
        assert worker.process.poll() is None
        assert worker.stop() == 0
    assert worker.err == []


def test_after_the_crowd_has_gone_it_answers_again(site: Site, start: Start, ops: int) -> None:
    """Even where it had no descriptor left to accept with."""
    worker = start(prefix=("prlimit", "--nofile=40"))
    worker.wait_event("weights-not-ready")
    with crowd(ops, 600) as found:
        until(lambda: found.rounds > 10)
    until(lambda: _answers(ops))
    assert worker.stop() == 0


def _answers(port: int) -> bool:
    try:
        return bool(state(port)["phase"] == "weights-check")
    except OSError:
        return False


ASKED: dict[bytes, bytes] = {
    b"GET /state HTTP/1.1\r\nhost: a\r\n\r\n": b"HTTP/1.1 200 ",
    b"GET /state HTTP/1.0\r\n\r\n": b"HTTP/1.1 200 ",
    b"GET /other HTTP/1.1\r\n\r\n": b"HTTP/1.1 404 ",
    b"POST /state HTTP/1.1\r\n\r\n": b"HTTP/1.1 405 ",
    b"HEAD /state HTTP/1.1\r\n\r\n": b"HTTP/1.1 405 ",
    b"GET /state HTTP/9.9\r\n\r\n": b"HTTP/1.1 400 ",
    b"GET  /state HTTP/1.1\r\n\r\n": b"HTTP/1.1 400 ",
    b"\x16\x03\x01\r\n\r\n": b"HTTP/1.1 400 ",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n": b"",
    b"GET /state HTTP/1.1\r\n" + b"x: y\r\n" * 4000 + b"\r\n": b"",
    b"GET /state HTTP/1.1\r\n": b"",
}
"""What a client sends, and how its answer begins; nothing for what is too much or never ends."""


def test_what_may_be_asked(site: Site, start: Start, ops: int) -> None:
    """A bounded head, GET alone, and an end within seconds."""
    start().wait_event("weights-not-ready")
    with ThreadPoolExecutor() as pool:
        answers = dict(zip(ASKED, pool.map(lambda asked: _answer(ops, asked), ASKED), strict=True))
    assert {asked: answer[: len(ASKED[asked]) or None] for asked, answer in answers.items()} == ASKED


def _answer(port: int, asked: bytes) -> bytes:
    """All that comes until the connection is closed."""
    answer = b""
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    with client, contextlib.suppress(ConnectionError):
        client.sendall(asked)
        while chunk := client.recv(65536):
            answer += chunk
    return answer
