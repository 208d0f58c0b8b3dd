"""What a request may be, and how long a client may take over it. Whoever goes beyond is told, and costs no worker."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress

import pytest

from tests.fake_worker import COMPLETION, WAIT_S, FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post, read_to_end, wait_until

BODY = json.dumps(ask("alpha")).encode()
LINE = f"POST {CHAT} HTTP/1.1\r\n".encode()
HOST, LENGTH, CHUNKED = (
    b"host: gateway\r\n",
    b"content-length: %d\r\n" % len(BODY),
    b"transfer-encoding: chunked\r\n",
)
END = b"\r\n" + BODY
IN_CHUNKS = b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
TOO_LARGE = {
    "a header of 1 MB": LINE + HOST + LENGTH + b"x-long: " + b"x" * 1_000_000 + b"\r\n" + END,
    "5,000 headers": LINE + HOST + LENGTH + b"".join(b"x-%d: 1\r\n" % at for at in range(5000)) + END,
    "65 headers": LINE + HOST + LENGTH + b"".join(b"x-%d: 1\r\n" % at for at in range(63)) + END,
    "a target of 1 MB": LINE.replace(b" HTTP", b"?" + b"x" * 1_000_000 + b" HTTP") + HOST + LENGTH + END,
}
AMBIGUOUS = {
    "no host": LINE + LENGTH + END,
    "two hosts": LINE + HOST + b"host: other\r\n" + LENGTH + END,
    "the same host twice": LINE + HOST + HOST + LENGTH + END,
    "a host that is none": LINE + b"host: a, b\r\n" + LENGTH + END,
    "an empty host": LINE + b"host:\r\n" + LENGTH + END,
    "two lengths": LINE + HOST + LENGTH + b"content-length: 5\r\n" + END,
    "the same length twice": LINE + HOST + LENGTH + LENGTH + END,
    "a list of lengths": LINE + HOST + b"content-length: 5, 5\r\n" + END,
    "a signed length": LINE + HOST + b"content-length: +5\r\n" + END,
    "length and coding": LINE + HOST + LENGTH + CHUNKED + IN_CHUNKS,
    "coding and length": LINE + HOST + CHUNKED + LENGTH + IN_CHUNKS,
    "two codings": LINE + HOST + CHUNKED + CHUNKED + IN_CHUNKS,
    "a coding that is not chunked": LINE + HOST + b"transfer-encoding: gzip, chunked\r\n" + IN_CHUNKS,
    "a coding behind chunked": LINE + HOST + b"transfer-encoding: chunked, identity\r\n" + IN_CHUNKS,
    "a coding in HTTP/1.0": LINE.replace(b"/1.1", b"/1.0") + HOST + CHUNKED + IN_CHUNKS,
    "a folded header": LINE + HOST + LENGTH + b"x-folded: a\r\n b\r\n" + END,
    "a folded coding": LINE + HOST + b"transfer-encoding:\r\n chunked\r\n" + IN_CHUNKS,
    "a space before the colon": LINE + HOST + b"content-length : %d\r\n" % len(BODY) + END,
    "bare line feeds": (LINE + HOST + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY,
    "one bare line feed": LINE + HOST.replace(b"\r\n", b"\n") + LENGTH + END,
    "a bare carriage return": LINE + HOST + b"x-a: 1\rx-b: 2\r\n" + LENGTH + END,
    "a zero byte": LINE + HOST + b"x-a: 1\x002\r\n" + LENGTH + END,
    "a chunk longer than its size": LINE + HOST + CHUNKED + b"\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk size that is none": LINE + HOST + CHUNKED + b"\r\n-5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "HTTP/1.2": LINE.replace(b"/1.1", b"/1.2") + HOST + LENGTH + END,
    "HTTP/0.9": f"POST {CHAT}\r\n\r\n".encode(),
    "HTTP/2's own beginning": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}  # fmt: skip


def answer_to(gateway: Gateway, request: bytes) -> bytes:
    """All that comes back for `request` until the gateway closes, for which it gets as long as any wait."""
    with gateway.connect() as connection:
        with suppress(ConnectionError):  # it need not read to the end of what it refuses
            connection.sendall(request)
        return read_to_end(connection)


@pytest.mark.parametrize("request_bytes", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_head_too_large(gateway: Gateway, worker: FakeWorker, request_bytes: bytes) -> None:
    """Is 431, once, and the end of its connection."""
    answer = answer_to(gateway, request_bytes)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.count(b"HTTP/1.1 4") == 1
    assert b'"code":"request_too_large"' in answer
    assert worker.seen.empty()


@pytest.mark.parametrize("request_bytes", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_request_that_can_be_read_in_two_ways(
    gateway: Gateway, worker: FakeWorker, request_bytes: bytes
) -> None:
    """Is 400 and the end of its connection: what follows on it is answered to nobody, and no worker sees it."""
    answer = answer_to(gateway, request_bytes + post(BODY))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 4") == 1
    assert b"\r\nconnection: close\r\n" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_request"
    assert worker.seen.empty()


def test_a_trailer_changes_nothing(gateway: Gateway, worker: FakeWorker) -> None:
    """What stands behind a chunked body is no header: it is neither heeded nor handed on."""
    trailers = b"content-type: text/plain\r\nx-request-id: mine\r\nauthorization: none\r\n"
    request = LINE + HOST + b"connection: close\r\n" + CHUNKED + IN_CHUNKS[:-2] + trailers + b"\r\n"
    assert answer_to(gateway, request).endswith(COMPLETION)
    seen = worker.next()
    assert seen.body == BODY
    assert not {"content-type", "authorization"} & {name for name, _ in seen.headers}


@pytest.mark.parametrize(
    "endless", [b"0\r\nx-trailer: ", b"1;extension=", b""], ids=["trailer", "extension", "leading zeros"]
)
def test_a_body_of_frames(gateway: Gateway, worker: FakeWorker, endless: bytes) -> None:
    """What a chunked body may have around its chunks is bounded: a header without an end would be kept in memory."""
    answer = answer_to(gateway, LINE + HOST + CHUNKED + b"\r\n" + endless + b"0" * 300_000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert worker.seen.empty()


def test_small_chunks_are_no_frames(gateway: Gateway, worker: FakeWorker) -> None:
    """One byte in each is as good as any."""
    body = json.dumps(ask("alpha") | {"padding": "x" * 30_000}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    request = LINE + HOST + b"connection: close\r\n" + CHUNKED + b"\r\n" + chunks + b"0\r\n\r\n"
    assert answer_to(gateway, request).endswith(COMPLETION)
    assert worker.next().body == body


def test_a_refusal_is_logged_and_counted(start_gateway: StartGateway) -> None:
    """What is no request has a line too, and a client of Anthropic's is told in its own words."""
    gateway = start_gateway()
    target = b"POST /v1/messages?" + b"x" * 20_000 + b" HTTP/1.1\r\n"
    answer = answer_to(gateway, target + HOST + LENGTH + END)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "request_too_large"
    assert gateway.event("refused")["status"] == 431
    assert gateway.metric("gateway_errors_total", model="unknown", code="request_too_large") == 1


def test_bytes_behind_a_last_request(gateway: Gateway, worker: FakeWorker) -> None:
    """A client that says that it asks no more may send what it likes behind that: its answer comes whole."""
    body = json.dumps(ask("alpha", "sse", chunks=3, hold=1)).encode()
    for at_once in (b"\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        with gateway.connect(post(body, "connection: close") + at_once) as connection:
            seen = worker.next()
            connection.sendall(b"x" * 100_000)
            time.sleep(0.1)
            seen.go_on()
            assert read_to_end(connection).endswith(b"0\r\n\r\n")


def test_what_is_plain_passes(gateway: Gateway, worker: FakeWorker) -> None:
    """A chunked body, and HTTP/1.0 without a host, are no ambiguities."""
    closed = b"connection: close\r\n"
    for request in (
        LINE + HOST + closed + CHUNKED + IN_CHUNKS,
        LINE.replace(b"/1.1", b"/1.0") + LENGTH + END,
    ):
        assert answer_to(gateway, request).endswith(COMPLETION)
        assert worker.next().body == BODY


def trickle(connection: socket.socket, data: bytes) -> tuple[bytes, float]:
    """Sends `data` byte by byte until something comes back; returns all that does, and the seconds it took."""
    started = time.monotonic()
    connection.settimeout(0.05)
    first = b""
    for at in range(len(data)):
        connection.sendall(data[at : at + 1])
        with suppress(TimeoutError):
            first = connection.recv(65536)
            break
    seconds = time.monotonic() - started
    connection.settimeout(WAIT_S)
    return first + read_to_end(connection), seconds


def test_a_head_that_trickles(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Each byte comes soon after the last, and the head too late all the same: 408, and closed."""
    gateway = start_gateway(GATEWAY_HEAD_TIMEOUT_S=0.5)
    with gateway.connect() as connection:
        answer, seconds = trickle(connection, post(BODY, "x-long: " + "x" * 1000))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert seconds > 0.5
    assert own_worker.seen.empty()


def test_a_body_that_trickles(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Likewise, with a log line."""
    gateway = start_gateway(GATEWAY_BODY_TIMEOUT_S=0.5)
    request = post(BODY + b" " * 1000)
    with gateway.connect(request[:-1000]) as connection:
        answer, seconds = trickle(connection, request[-1000:-1])
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert seconds > 0.5
    assert own_worker.seen.empty()
    assert gateway.event("request", status=408)["code"] == "invalid_request"


def test_a_slow_answer_is_no_slow_request(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """The client's limits count for the client alone: a worker may take longer."""
    gateway = start_gateway(GATEWAY_HEAD_TIMEOUT_S=0.2, GATEWAY_BODY_TIMEOUT_S=0.2, GATEWAY_KEEP_ALIVE_S=0.2)
    with gateway.connect(post(json.dumps(ask("alpha", "json", hold=True)).encode())) as connection:
        seen = own_worker.next()
        time.sleep(1)
        seen.go_on()
        assert read_to_end(connection).endswith(COMPLETION)


def test_an_idle_connection_is_closed(start_gateway: StartGateway) -> None:
    """In silence, whether or not it ever carried a request."""
    gateway = start_gateway(GATEWAY_KEEP_ALIVE_S=0.5)
    started = time.monotonic()
    with gateway.connect() as unused, gateway.connect(post(BODY)) as used:
        assert read_to_end(unused) == b""
        assert read_to_end(used).endswith(COMPLETION)
    assert time.monotonic() - started > 0.5


def test_who_takes_nothing_of_an_answer_is_cut_off(
    start_gateway: StartGateway, own_worker: FakeWorker
) -> None:
    """The worker is free again, and the log says who ended it."""
    gateway = start_gateway(GATEWAY_WRITE_TIMEOUT_S=1)
    with gateway.connect(post(json.dumps(ask("alpha", "flood", bytes=50_000_000)).encode())):
        seen = own_worker.next()
        assert seen.gone.wait(WAIT_S)
        assert seen.payload_bytes < 50_000_000
        assert gateway.event("request", ending="client_gone")["status"] == 499
        wait_until(lambda: gateway.in_flight() == 0, "the lease given back")


def test_who_takes_an_answer_slowly_gets_it(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """It is silence that ends a connection, not slowness."""
    gateway = start_gateway(GATEWAY_WRITE_TIMEOUT_S=1)
    request = post(json.dumps(ask("alpha", "flood", bytes=20_000_000)).encode(), "connection: close")
    received, started = 0, time.monotonic()
    with gateway.connect(request) as connection:
        while part := connection.recv(1 << 20):
            received += len(part)
            time.sleep(0.1)
    assert received > own_worker.next().payload_bytes >= 20_000_000 - 32_768
    assert time.monotonic() - started > 1


@pytest.mark.parametrize(("levels", "status"), [(60, 200), (70, 400), (900, 400)])
def test_deep_json(gateway: Gateway, worker: FakeWorker, levels: int, status: int) -> None:
    """Nesting beyond what any real request has is refused, and named as the reason."""
    body = BODY[:-1] + b', "deep": ' + b"[" * levels + b"]" * levels + b"}"
    answer = gateway.http.post(CHAT, content=body)
    assert answer.status_code == status
    assert (status == 200) == ("nested deeper" not in answer.text)
    assert worker.seen.empty() == (status == 400)


@pytest.mark.parametrize("second", [b'"model"', b'"mod\\u0065l"'])
def test_two_models_in_one_body(gateway: Gateway, worker: FakeWorker, second: bytes) -> None:
    """Neither is taken, in whichever spelling."""
    answer = gateway.http.post(CHAT, content=b"{" + second + b': "pair", ' + BODY[1:])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert worker.seen.empty()


def test_a_model_named_elsewhere_is_no_second_one(gateway: Gateway, worker: FakeWorker) -> None:
    """Inside of other objects `model` is any name."""
    body = BODY[:-1] + b', "metadata": {"model": "other", "note": "\\"model\\""}}'
    assert gateway.http.post(CHAT, content=body).content == COMPLETION
    assert worker.next().body == body


MEDIA = [
    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    {"type": "image_url", "image_url": "http://169.254.169.254/"},
    {"type": "video_url", "video_url": {"url": "HTTP://example.org/a.mp4"}},
    {"type": "audio_url", "audio_url": {"url": "file:///etc/passwd"}},
    {"type": "image_url", "image_url": {"url": "ftp://example.org/"}},
    {"type": "input_image", "image_url": "https://example.org/a.png"},
]
SOURCE = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
LINK = {"image_url": "https://example.org/a.png", "source": {"url": "https://example.org/a.png"}}
CALL = {"type": "tool_use", "id": "1", "name": "t", "input": LINK}
RESULT = {"type": "tool_result", "tool_use_id": "1", "content": json.dumps(LINK)}


@pytest.mark.parametrize("part", MEDIA, ids=str)
def test_media_to_be_fetched(gateway: Gateway, worker: FakeWorker, part: dict[str, object]) -> None:
    """No worker fetches for a client; the refusal says what to send instead."""
    body = ask("alpha") | {"messages": [{"role": "user", "content": [part]}]}
    answer = gateway.http.post(CHAT, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert "data: URIs" in answer.json()["error"]["message"]
    assert worker.seen.empty()


@pytest.mark.parametrize(
    "part", [SOURCE, {"type": "tool_result", "tool_use_id": "1", "content": [SOURCE]}], ids=str
)
def test_media_of_messages(gateway: Gateway, worker: FakeWorker, part: dict[str, object]) -> None:
    """Likewise where Anthropic's clients name them."""
    body = {"model": "alpha", "max_tokens": 1, "messages": [{"role": "user", "content": [part]}]}
    answer = gateway.http.post("/v1/messages", json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "data: URIs" in answer.json()["error"]["message"]
    assert worker.seen.empty()


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (
            "/v1/messages",
            {"messages": [{"role": "assistant", "content": [CALL]}, {"role": "user", "content": [RESULT]}]},
        ),
        (
            "/v1/messages",
            {"tools": [{"name": "t", "input_schema": {"properties": LINK, "examples": [LINK]}}]},
        ),
        (
            CHAT,
            {
                "tools": [{"type": "function", "function": {"parameters": {"properties": LINK}}}],
                "metadata": LINK,
            },
        ),
        ("/v1/responses", {"input": "look", "metadata": LINK}),
    ],
    ids=str,
)
def test_addresses_in_anybodys_text(
    gateway: Gateway, worker: FakeWorker, path: str, more: dict[str, object]
) -> None:
    """What a tool gets or returns, schemas, examples and metadata: a history with them stays usable."""
    body = ask("alpha") | more
    assert gateway.http.post(path, json=body).status_code == 200
    assert json.loads(worker.next().body) == body


def test_media_that_an_escape_hides(gateway: Gateway, worker: FakeWorker) -> None:
    """A key is the same however it is spelt."""
    part = b'{"type":"image_url","image\\u005furl":{"url":"http://169.254.169.254/"}}'
    body = b'{"model":"alpha","messages":[{"role":"user","content":[%b]}]}' % part
    assert gateway.http.post(CHAT, content=body).status_code == 400
    assert worker.seen.empty()


def test_media_in_the_request_passes(gateway: Gateway, worker: FakeWorker) -> None:
    """A data: URI goes to the worker as it is."""
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = ask("alpha") | {"messages": [{"role": "user", "content": [part]}]}
    assert gateway.http.post(CHAT, json=body).content == COMPLETION
    assert json.loads(worker.next().body) == body
