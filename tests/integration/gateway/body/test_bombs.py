"""Requests made to take memory or time: each is refused with a 4xx, and the gateway is none the larger for it."""

from __future__ import annotations

import gzip
import json
from contextlib import ExitStack, suppress

from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post

MIB = 1 << 20
MAX_GROWTH = (50 + 50) * MIB  # one body of the size that is taken, and little more
HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\n".encode()
BODY = json.dumps(ask("alpha")).encode()
CHUNK = b"10000\r\n" + b"x" * 65536 + b"\r\n"
BOMBS = {
    "a header of 1 MB": HEAD + b"x: " + b"x" * MIB + b"\r\n\r\n",
    "5,000 headers": HEAD + b"".join(b"x-%d: 1\r\n" % at for at in range(5000)) + b"\r\n",
    "a body of 1 GB": HEAD + b"content-length: 1000000000\r\n\r\n" + b"x" * MIB,
    "a body without an end": HEAD + b"transfer-encoding: chunked\r\n\r\n" + CHUNK * 1000,
    "100,000 levels": post(b'{"model":"alpha","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "100,000 levels of objects": post(b'{"model":"alpha","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}"),
    "four million empty lists": post(b'{"model":"alpha","x":[' + b"[]," * 4_000_000 + b"1]}"),
    "900,000 small objects": post(b'{"model":"alpha","messages":[' + b'{"a":0},' * 900_000 + b"0]}"),
    "a form of five million boundaries": post(
        b"--B" * 5_000_000, "content-type: multipart/form-data; boundary=B"
    ).replace(CHAT.encode(), b"/v1/audio/transcriptions", 1),
    "ten million backslashes": post(b'{"model":"alpha","x":"' + b"\\" * 10_000_001 + b'"}'),
    "two models": post(b'{"model":"alpha","model":"beta"}'),
    "not a number": post(BODY.replace(b"}", b',"temperature":NaN}', 1)),
    "infinity": post(BODY.replace(b"}", b',"temperature":1e999}', 1)),
    "half a surrogate as a model": post(b'{"model":"\\ud800"}'),
    "bytes that are no UTF-8": post(b'{"model":"\xff\xfe"}'),
    "compressed zeros": post(gzip.compress(b"0" * 100 * MIB), "content-encoding: gzip"),
}  # fmt: skip


def first_line(gateway: Gateway, request: bytes) -> bytes:
    with gateway.connect() as connection:
        with suppress(ConnectionError):  # it need not read to the end of what it refuses
            connection.sendall(request)
        told = connection.recv(65536)
    return told.partition(b"\r\n")[0]


def test_bombs(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """One after the other, at one gateway, which then answers as before."""
    gateway = start_gateway()
    gateway.chat("alpha")
    own_worker.forget()
    before, told = gateway.rss_bytes(), {}
    for name, request in BOMBS.items():
        told[name] = first_line(gateway, request)
    assert {name: line for name, line in told.items() if not line.startswith(b"HTTP/1.1 4")} == {}
    assert gateway.rss_bytes() - before < MAX_GROWTH
    assert own_worker.seen.empty()
    assert gateway.chat("alpha").content == COMPLETION


HEAVY = b'{"model":"alpha","messages":[{"content":{' + b'"im\\u0061ge_url":0,' * 100_000 + b'"x":0}}]}'


def test_a_heavy_body_takes_turns_with_others(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """A chat that comes after two of the heaviest bodies that are taken reaches the worker before any of them."""
    gateway = start_gateway()
    own_worker.forget()
    heavy, chat = post(HEAVY), post(BODY)
    with ExitStack() as stack:
        connections = [stack.enter_context(gateway.connect(heavy[:-1])) for _ in range(2)]
        beside = stack.enter_context(gateway.connect())
        for connection in connections:
            connection.sendall(heavy[-1:])
        beside.sendall(chat)
        assert own_worker.next().body == BODY
        assert {own_worker.next().body for _ in connections} == {HEAVY}
