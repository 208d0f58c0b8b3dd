"""Requests that cannot be served get an OpenAI error object that says why, and reach no worker."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.harness import CHAT, COMPLETIONS, Gateway, ask, post, read_to_end

LIMIT = 1_000_000  # the session gateway's GATEWAY_MAX_BODY_BYTES
NOT_JSON = [b"", b"{", b"\xff\xfe", b'{"model": NaN}', b'{"model": "\\ud800"}', b"[" * 60]
OTHER_TEXT = ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"]
WITHOUT_MODEL = [
    b"[]",
    b"null",
    b'"alpha"',
    b"{}",
    b'{"model": ""}',
    b'{"model": 1}',
    b'{"model": ["alpha"]}',
]


def error_of(answer: httpx.Response) -> dict[str, str | None]:
    """The error object, which must have OpenAI's four fields and no others."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-gateway-error"] == error["code"]
    return error


@pytest.mark.parametrize("body", NOT_JSON)
def test_a_body_that_is_not_json(gateway: Gateway, worker: FakeWorker, body: bytes) -> None:
    """Anything that is not JSON is 400 invalid_request and says so."""
    answer = gateway.http.post(CHAT, content=body)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "invalid_request")
    assert "not valid JSON" in error["message"]
    assert worker.seen.empty()


@pytest.mark.parametrize("coding", OTHER_TEXT)
def test_a_body_of_other_text(gateway: Gateway, worker: FakeWorker, coding: str) -> None:
    """A byte order mark before UTF-8 is dropped; anything but UTF-8 is refused in clear words."""
    text = json.dumps(ask("alpha") | {"user": "é"}, ensure_ascii=False)
    answer = gateway.http.post(CHAT, content=text.encode(coding))
    if coding == "utf-8-sig":
        assert answer.content == COMPLETION
        assert worker.next().body == text.encode()
    else:
        assert "UTF-" in error_of(answer)["message"]
        assert worker.seen.empty()


@pytest.mark.parametrize("body", WITHOUT_MODEL)
def test_a_body_without_a_model(gateway: Gateway, body: bytes) -> None:
    """A body that names no model is 400 invalid_request about `model`."""
    answer = gateway.http.post(COMPLETIONS, content=body)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_request", "model")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(gateway: Gateway, worker: FakeWorker, chunked: bool) -> None:
    """A body beyond the limit is 413, whether its length was declared or not."""
    body = json.dumps(ask("alpha") | {"padding": "x" * LIMIT}).encode()
    answer = gateway.http.post(CHAT, content=iter([body]) if chunked else body)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "request_too_large")
    assert worker.seen.empty()


def test_a_body_is_refused_by_its_declared_length(gateway: Gateway) -> None:
    """A declared length beyond the limit is refused before the body is sent."""
    head = post(b"").replace(b"content-length: 0", b"content-length: 1000001\r\nconnection: close")
    with gateway.connect(head) as connection:
        assert read_to_end(connection).startswith(b"HTTP/1.1 413 ")


def test_a_body_at_the_limit_passes(gateway: Gateway, worker: FakeWorker) -> None:
    """The limit itself is taken, and arrives whole."""
    start = json.dumps(ask("alpha"))[:-1] + ', "padding": "'
    body = start + "x" * (LIMIT - len(start) - 2) + '"}'
    assert gateway.http.post(CHAT, content=body).content == COMPLETION
    assert worker.next().body == body.encode()


PAGES = ["/health", "/ready", "/openapi.json", "/v1/models", "/v1/models/alpha"]
WRONG = [
    *((method, CHAT, "POST") for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS")),
    ("PUT", COMPLETIONS, "POST"),
    ("POST", "/v1/responses/resp_1", "GET"),
    ("GET", "/v1/responses/resp_1/cancel", "POST"),
    ("GET", "/v2/rerank", "POST"),
    *((method, path, "GET, HEAD") for path in PAGES for method in ("POST", "DELETE", "OPTIONS")),
]


@pytest.mark.parametrize(("method", "path", "allowed"), [one for one in WRONG if one[0] != "HEAD"])
def test_a_wrong_method(gateway: Gateway, method: str, path: str, allowed: str) -> None:
    """A known path under another method is 405, and `Allow` says which it takes."""
    answer = gateway.http.request(method, path)
    assert (answer.status_code, error_of(answer)["code"]) == (405, "invalid_request")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/nothing", "//v1/chat/completions", CHAT + "//", "/metrics", "/workers"]
)
def test_a_route_that_is_not_there(gateway: Gateway, worker: FakeWorker, path: str) -> None:
    """Every other path is 404 in OpenAI's shape; the ops port's pages are not on the data port."""
    answer = gateway.http.post(path, json=ask("alpha"))
    assert (answer.status_code, error_of(answer)["code"]) == (404, "invalid_request")
    assert worker.seen.empty()


@pytest.mark.parametrize("path", [*PAGES, "/v1/models/nobody", "/nowhere"])
def test_a_head_is_a_page_without_its_body(gateway: Gateway, path: str) -> None:
    """HEAD has the status, the type and the length of GET; the connection serves on."""
    page, head = gateway.http.get(path), gateway.http.head(path)
    assert (head.status_code, head.content) == (page.status_code, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == page.headers[name]
    assert gateway.http.head(CHAT).headers["allow"] == "POST"


@pytest.mark.parametrize("path", PAGES)
def test_a_slash_at_a_pages_end(gateway: Gateway, path: str) -> None:
    """It is the same page; nobody is sent elsewhere, least of all to where the Host header says."""
    answer = gateway.http.get(path + "/", headers={"host": "elsewhere.example"})
    assert (answer.status_code, answer.content) == (200, gateway.http.get(path).content)
    assert "location" not in answer.headers


def test_a_refusal_keeps_the_connection(gateway: Gateway, worker: FakeWorker) -> None:
    """After a refused request the same client connection serves the next one."""
    bad, good = b"{", json.dumps(ask("alpha")).encode()
    with gateway.connect(post(bad)) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
        connection.sendall(post(good, "connection: close"))
        assert read_to_end(connection).endswith(COMPLETION)


def test_a_long_model_name_is_not_repeated_in_full(gateway: Gateway) -> None:
    """An error message does not carry a name of any length back."""
    answer = gateway.chat("x" * 100_000)
    assert answer.status_code == 404
    assert len(answer.content) < 1000
