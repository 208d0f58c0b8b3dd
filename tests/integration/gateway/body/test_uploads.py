"""Many big uploads at once: the process stays within its memory, each client is answered, a small chat is served."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post, read_to_end, wait_until

MIB = 1 << 20
BEHIND = (
    200 * MIB
)  # what a process takes beside the bodies that it holds twice: its own, and one that is being read


def peak_bytes(gateway: Gateway) -> int:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def upload(gateway: Gateway, body: bytes) -> str:
    """The status that it gets, with what it is told of a next try."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with gateway.connect() as connection:
        connection.settimeout(300)
        with suppress(ConnectionError):  # a refusal may come before the whole body is read
            connection.sendall(head.encode())
            connection.sendall(body)
        answer = read_to_end(connection)
    return answer[9:12].decode() + (", retry" if b"\r\nretry-after: " in answer else "")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("clients", "size", "room"),
    [(16, 8 * MIB, 40 * MIB), pytest.param(64, 50 * MIB, None, marks=pytest.mark.full)],
    ids=["small", "full"],
)
def test_uploads_at_once(
    start_gateway: StartGateway, own_worker: FakeWorker, clients: int, size: int, room: int | None
) -> None:
    """At full count as many as the shipped container must withstand, within the gibibyte that it has."""
    given = {"GATEWAY_BODIES_BYTES": room} if room else {}
    gateway = start_gateway(GATEWAY_MAX_TEXT_BYTES=size, GATEWAY_MAX_BODY_BYTES=size, **given)
    body = json.dumps(ask("alpha")).encode()[:-1] + b', "padding": "'
    body += b"x" * (size - len(body) - 2) + b'"}'
    gateway.http.timeout = 120  # all of this runs in the two processes of the test
    with ThreadPoolExecutor(clients) as threads:
        uploads = [threads.submit(upload, gateway, body) for _ in range(clients)]
        while not all(one.done() for one in uploads):
            assert gateway.chat("alpha").content == COMPLETION
            time.sleep(0.05)
    told = Counter(one.result() for one in uploads)
    assert set(told) <= {"200", "503, retry"}, told
    assert told["200"] >= 1
    assert peak_bytes(gateway) < (2 * room + BEHIND if room else 1024 * MIB)
    assert upload(gateway, body) == "200"


def held(size: int, **script: object) -> bytes:
    """A chat of `size` bytes whose answer the worker holds back."""
    asked = ask("alpha", **{"hold": True, **script}) | {"stream": script["do"] == "sse"}
    start = json.dumps(asked).encode()[:-1] + b', "padding": "'
    return start + b"x" * (size - len(start) - 2) + b'"}'


def test_a_large_body_that_asks_for_a_stream(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """The gateway's wish for usage is put in between its bytes, and nothing else changes."""
    gateway = start_gateway()
    body = held(8 * MIB, do="sse")[:-1] + b', "seed": 12345678901234567890123}'
    with gateway.connect(post(body)):
        seen = own_worker.next()
    assert seen.body.replace(b'"stream_options":{"include_usage":true},', b"", 1) == body
    assert b"include_usage" in seen.body


@pytest.mark.parametrize("script", [{"do": "json"}, {"do": "sse", "hold": -1}], ids=["whole", "stream"])
def test_what_a_worker_has_taken_makes_room(
    start_gateway: StartGateway, own_worker: FakeWorker, script: dict[str, object]
) -> None:
    """Uploads that wait for their answers keep no further one out, though two of these have no room together."""
    gateway = start_gateway(GATEWAY_BODIES_BYTES=8 * MIB)
    body = held(5 * MIB, **script)
    connections, seen = [], []
    for _ in range(3):
        connections.append(gateway.connect(post(body, "connection: close")))
        seen.append(own_worker.next())
        wait_until(lambda: gateway.metric("gateway_bodies_bytes") == 0, "no body held")
    assert all(one.body == seen[0].body for one in seen)
    assert gateway.metric("gateway_bodies_limit_bytes") == 8 * MIB
    for one in seen:
        one.go_on()
    for connection in connections:
        with connection:
            assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")


def test_who_sends_a_refused_body_to_its_end_gets_the_refusal(start_gateway: StartGateway) -> None:
    """Python's own client looks for no answer before it has sent all, and a reset would take the answer from it."""
    gateway = start_gateway(GATEWAY_MAX_BODY_BYTES=30 * MIB)
    for size in (31 * MIB, 59 * MIB):
        connection = http.client.HTTPConnection(gateway.address, timeout=60)
        connection.request("POST", CHAT, b"x" * size)
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["error"]["code"]) == (413, "request_too_large")
        connection.close()
