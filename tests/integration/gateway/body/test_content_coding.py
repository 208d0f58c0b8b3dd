"""Compressed requests: the worker gets what is in them, a bomb is refused, and others do not wait for it."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post

MIB = 1 << 20
BODY = json.dumps(ask("alpha") | {"padding": "x" * 5000}).encode()
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress,
}  # fmt: skip


@pytest.mark.parametrize("coding", ENCODERS)
def test_a_compressed_body_reaches_the_worker_as_it_was(
    gateway: Gateway, worker: FakeWorker, coding: str
) -> None:
    """Byte for byte, with its length and without the coding."""
    answer = gateway.http.post(CHAT, content=ENCODERS[coding](BODY), headers={"content-encoding": coding})
    seen = worker.next()
    assert answer.content == COMPLETION
    assert seen.body == BODY
    told = dict(seen.headers)
    assert told["content-length"] == str(len(BODY))
    assert "content-encoding" not in told


def test_a_form_may_be_compressed(gateway: Gateway, worker: FakeWorker) -> None:
    """A coding is of the body, whatever is in it."""
    form = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nalpha\r\n--B--\r\n'
    fields = {"content-encoding": "gzip", "content-type": "multipart/form-data; boundary=B"}
    gateway.http.post("/v1/audio/transcriptions", content=gzip.compress(form), headers=fields)
    assert worker.next().body == form


@pytest.mark.parametrize("coding", ["snappy", "gzip, gzip"])
def test_a_coding_that_is_not_taken_is_told_before_the_body(gateway: Gateway, coding: str) -> None:
    """415 with what is taken; nobody uploads a body for it."""
    request = post(b"").replace(
        b"content-length: 0", b"content-length: 1000\r\ncontent-encoding: " + coding.encode()
    )
    with gateway.connect(request.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n")) as connection:
        told = connection.recv(65536)
    assert told.startswith(b"HTTP/1.1 415 ")
    assert b"accept-encoding: gzip, deflate, br, zstd\r\n" in told
    assert coding.split(",")[0].encode() in told or b"times" in told


@pytest.mark.parametrize("coding", ENCODERS)
def test_what_is_no_such_coding_is_refused(gateway: Gateway, worker: FakeWorker, coding: str) -> None:
    """Bytes that only claim to be compressed are the client's fault."""
    answer = gateway.http.post(CHAT, content=BODY, headers={"content-encoding": coding})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert coding in answer.json()["error"]["message"]
    assert worker.seen.empty()


@pytest.mark.parametrize("coding", ENCODERS)
def test_the_limit_is_of_what_is_in_it(gateway: Gateway, worker: FakeWorker, coding: str) -> None:
    """The route's limit holds for the decoded body."""
    content = ENCODERS[coding](json.dumps(ask("alpha") | {"padding": "x" * MIB}).encode())
    answer = gateway.http.post(CHAT, content=content, headers={"content-encoding": coding})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert worker.seen.empty()


def test_what_is_refused_is_not_kept(start_gateway: StartGateway) -> None:
    """Each of these comes to 38 MiB before it is more than 200 times as large as what was sent."""
    gateway = start_gateway()
    gateway.chat("alpha")
    content, before = gzip.compress(os.urandom(150_000) + b"0" * 48 * MIB), gateway.rss_bytes()
    for _ in range(6):
        answer = gateway.http.post(CHAT, content=content, headers={"content-encoding": "gzip"})
        assert answer.status_code == 413
    assert gateway.rss_bytes() - before < 120 * MIB
    assert gateway.chat("alpha").status_code == 200


def test_who_leaves_meanwhile_is_forgotten(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """A client that goes while its body is decoded leaves nothing behind, and reaches no worker."""
    gateway = start_gateway()
    own_worker.forget()
    content = gzip.compress(json.dumps(ask("alpha") | {"image_url": "0" * 40 * MIB}).encode())
    for _ in range(3):
        gateway.connect(post(content, "content-encoding: gzip")).close()
    assert gateway.chat("alpha").content == COMPLETION
    assert [line["ending"] for line in gateway.several(4, "request")].count("client_gone") == 3
    assert gateway.events("fault") == []
    assert own_worker.next().body == json.dumps(ask("alpha"), separators=(",", ":")).encode()
