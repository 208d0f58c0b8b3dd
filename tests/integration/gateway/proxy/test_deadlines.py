"""How long a worker may take, and the comments that keep a silent stream alive meanwhile."""

from __future__ import annotations

import json
import time

import httpx
import openai
import pytest

from gateway.api.routes import TABLE, Kind
from tests.fake_worker import COMPLETION, DONE, WAIT_S, FakeWorker, event
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post, read_to_end, wait_until

COMMENT = b": keep-alive\n\n"


def stream(do: str, **script: object) -> dict[str, object]:
    """A request that says itself that it wants a stream."""
    return ask("alpha", do, **script) | {"stream": True, "stream_options": {"include_usage": True}}


def whole(gateway: Gateway, body: dict[str, object]) -> bytes:
    """All bytes of an answer, frames and all."""
    with gateway.connect(post(json.dumps(body).encode(), "connection: close")) as connection:
        return read_to_end(connection)


def error_in(answer: bytes) -> dict[str, str]:
    """The error event with which a broken stream ends."""
    assert not answer.endswith(b"0\r\n\r\n")
    error: dict[str, str] = json.loads(answer.rpartition(b"data: ")[2].split(b"\n\n")[0])["error"]
    return error


def read_comments(answer: httpx.Response, wanted: int) -> bytes:
    """Reads on until so many comments have come."""
    received = b""
    for chunk in answer.iter_raw():
        received += chunk
        if received.count(COMMENT) >= wanted:
            break
    return received


def test_a_silent_worker(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """An answer whose first byte does not come is 504, for a stream as well, and the worker is free."""
    gateway = start_gateway(GATEWAY_FIRST_BYTE_TIMEOUT_S=0.5)
    for body in (ask("alpha", "hang"), stream("hang")):
        answer = gateway.http.post(CHAT, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "worker_timeout")
        assert own_worker.next().gone.wait(WAIT_S)
    assert gateway.in_flight() == 0


@pytest.mark.parametrize("begins", [1, 3])
def test_a_stream_that_stops(start_gateway: StartGateway, own_worker: FakeWorker, begins: int) -> None:
    """Ends with an error event once nothing has come for the idle timeout, and the worker is free."""
    gateway = start_gateway(GATEWAY_IDLE_TIMEOUT_S=0.5)
    answer = whole(gateway, stream("sse", chunks=5, hold=begins))
    assert error_in(answer)["code"] == "worker_timeout"
    assert answer.count(b"word") == begins
    assert own_worker.next().gone.wait(WAIT_S)
    assert gateway.event("request", ending="broken")["code"] == "worker_timeout"


def test_a_head_is_no_first_byte(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """vLLM sends a stream's head at once, and may then read a long prompt: the idle timeout begins behind that."""
    gateway = start_gateway(GATEWAY_IDLE_TIMEOUT_S=0.5)
    with gateway.connect(
        post(json.dumps(stream("sse", chunks=2, hold=0)).encode(), "connection: close")
    ) as c:
        seen = own_worker.next()
        time.sleep(1.2)
        seen.go_on()
        assert read_to_end(c).endswith(b"0\r\n\r\n")
    line = gateway.event("request", ending="complete")
    assert line["ttfb_ms"] > 1000


def test_a_head_without_a_first_byte(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Is 504 in its time; a client that would send it all again is told not to."""
    gateway = start_gateway(GATEWAY_FIRST_BYTE_TIMEOUT_S=0.5)
    answer = gateway.http.post(CHAT, json=stream("sse", chunks=2, hold=0))
    assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
    assert own_worker.next().gone.wait(WAIT_S)


def test_an_answer_that_stops(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Without events nothing can be said in it: the connection ends before the length that was told."""
    gateway = start_gateway(GATEWAY_IDLE_TIMEOUT_S=0.5)
    answer = whole(gateway, ask("alpha", "pieces", pieces=["{", " " * 100, "}"], json=True, hold=1))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-length: 102" in head
    assert body == b"{"


def test_a_slow_stream_is_not_a_silent_one(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """The idle timeout counts from the last chunk."""
    gateway = start_gateway(GATEWAY_IDLE_TIMEOUT_S=1)
    answer = gateway.http.post(CHAT, json=stream("sse", chunks=6, delay_s=0.3))
    assert answer.content.endswith(DONE)


def test_a_stream_that_never_ends(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """However busy, it is over after the time that a request may take in all."""
    gateway = start_gateway(GATEWAY_TOTAL_TIMEOUT_S=1)
    answer = whole(gateway, stream("sse", chunks=10_000, delay_s=0.05))
    assert error_in(answer)["code"] == "worker_timeout"
    assert own_worker.next().gone.wait(WAIT_S)


def test_comments_do_not_prolong(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """They are ours: the worker's silence is measured without them."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2, GATEWAY_FIRST_BYTE_TIMEOUT_S=1, GATEWAY_IDLE_TIMEOUT_S=1)
    for script in ({"do": "hang"}, {"do": "sse", "hold": 1}):
        answer = whole(gateway, stream(**script))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert 1 <= answer.count(COMMENT) <= 6
        assert error_in(answer)["code"] == "worker_timeout"
        assert own_worker.next().gone.wait(WAIT_S)


def test_comments_before_the_first_byte(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """The status is 200 by then, and the stream comes whole behind them."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2)
    with gateway.http.stream("POST", CHAT, json=stream("sse", chunks=2, hold=-1)) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        chunks = answer.iter_raw()
        assert next(chunks) == COMMENT
        own_worker.next().go_on()
        received = b"".join(chunks)
    assert received.replace(COMMENT, b"") == event(0) + event(1) + DONE
    line = gateway.logged(answer)
    assert (line["status"], line["ending"], line["stream"]) == (200, "complete", True)


def test_comments_behind_a_head_without_events(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """The head that was held for the first event goes out with the comment, as the worker sent it."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2)
    with gateway.http.stream("POST", CHAT, json=stream("sse", chunks=2, hold=0)) as answer:
        assert (answer.status_code, len(answer.headers.get_list("content-type"))) == (200, 1)
        chunks = answer.iter_raw()
        assert next(chunks) == COMMENT
        own_worker.next().go_on()
        assert b"".join(chunks).replace(COMMENT, b"") == event(0) + event(1) + DONE


def test_comments_between_chunks(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """More than one, if the silence lasts, and between events, never inside of one."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2)
    with gateway.http.stream("POST", CHAT, json=stream("sse", chunks=2, hold=1)) as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == event(0)
        assert [next(chunks) for _ in range(3)] == [COMMENT] * 3
        own_worker.next().go_on()
        assert b"".join(chunks).replace(COMMENT, b"") == event(1) + DONE


def test_no_comment_inside_of_an_event(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """An event that a worker has begun is not torn apart."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2, GATEWAY_IDLE_TIMEOUT_S=1.5)
    begun = event(0)[:-20].decode()
    answer = whole(gateway, stream("pieces", pieces=[begun], hold=1))
    assert COMMENT not in answer


OPENAI = {"error": {"message": "told", "type": "BadRequestError", "param": "tools", "code": 400}}
ANTHROPIC = {"type": "error", "error": {"type": "invalid_request_error", "message": "told"}}
PLAIN = {"error": {"message": "told", "type": "invalid_request_error", "param": None, "code": 400}}
TOLD = {
    ("chat/completions", json.dumps(OPENAI)): OPENAI,
    ("chat/completions", json.dumps(OPENAI, indent=2)): OPENAI,
    ("chat/completions", '{"error":"told"}'): PLAIN,
    ("completions", '{"detail":"told"}'): PLAIN,
    ("completions", "told\n"): PLAIN,
    ("responses", json.dumps(OPENAI)): OPENAI,
    ("messages", json.dumps(ANTHROPIC)): ANTHROPIC,
    ("messages", json.dumps(OPENAI)): ANTHROPIC,
}


def test_a_workers_error_behind_a_comment(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """It can no longer be a status, so it is an event: the worker's own object, in the words of the route, and the
    client's error as it would be without the comment."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2)
    for (route, told), wanted in TOLD.items():
        body = json.dumps({"model": "alpha", "stream": True} | {"script": held_error(400, told)}).encode()
        request = post(body, "connection: close").replace(b"/v1/chat/completions", f"/v1/{route}".encode(), 1)
        with gateway.connect(request) as connection:
            seen = own_worker.next()
            received = b""
            while COMMENT not in received:
                received += connection.recv(65536)
            seen.go_on()
            received += read_to_end(connection)
        assert received.startswith(b"HTTP/1.1 200 ")
        assert not received.endswith(b"0\r\n\r\n")
        event = received.rpartition(COMMENT)[2].partition(b"\r\n")[2].partition(b"\r\n")[2]
        name = b"" if "completions" in route else b"event: error\n"
        assert event.startswith(name + b"data: ")
        assert json.loads(event.removeprefix(name + b"data: ").partition(b"\n\n")[0]) == wanted
    lines = gateway.several(len(TOLD), "request")
    assert {(line["status"], line["ending"], line["code"]) for line in lines} == {(400, "complete", None)}
    assert gateway.metric("gateway_worker_failures_total") == 0


def test_a_workers_own_failure_behind_a_comment(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Keeps its words and its status likewise; the openai client raises it."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2)
    asked = gateway.openai.chat.completions.create(
        model="alpha",
        messages=[],
        stream=True,
        extra_body={"script": {"do": "error", "status": 500, "late_s": 0.7}},
    )
    with pytest.raises(openai.APIError, match="told by the worker"):
        list(asked)
    assert gateway.event("request", status=500)["stream"] is True


def held_error(status: int, told: str) -> dict[str, object]:
    return {"do": "error", "status": status, "told": told, "hold": True}


def test_no_stream_behind_a_comment(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """A document in a stream's place is no answer."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2)
    answer = whole(gateway, stream("json", late_s=0.7))
    assert error_in(answer)["code"] == "bad_worker_response"


def test_a_worker_that_dies_behind_a_comment(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Likewise."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2)
    answer = whole(gateway, stream("close", late_s=0.7))
    assert COMMENT in answer
    assert error_in(answer)["code"] == "upstream_disconnected"


def test_no_comments_in_what_is_no_stream(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """JSON has no place for them."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2)
    answer = gateway.http.post(CHAT, json=ask("alpha", "json", late_s=1))
    assert answer.content == COMPLETION


def test_no_comments_on_routes_without_streams(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """vLLM answers there with JSON whatever `stream` says, and so it comes, however late."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2)
    body = json.dumps(ask("alpha", "json", hold=True) | {"stream": True}).encode()
    paths = [route.path for route in TABLE if not route.streams and route.kind is Kind.JSON]
    connections = [
        gateway.connect(post(body, "connection: close").replace(CHAT.encode(), path, 1)) for path in paths
    ]
    seen = [own_worker.next() for _ in paths]
    with gateway.http.stream("POST", CHAT, json=stream("hang")) as answer:  # asked last, and told of
        assert read_comments(answer, 2).count(COMMENT) == 2
    for one in seen:
        one.go_on()
    for connection, path in zip(connections, paths, strict=True):
        with connection:
            head, _, told = read_to_end(connection).partition(b"\r\n\r\n")
        assert (head[:13], told) == (b"HTTP/1.1 200 ", COMPLETION), path


def test_a_client_that_leaves_among_comments(start_gateway: StartGateway, own_worker: FakeWorker) -> None:
    """Frees the worker, which may still be at the prompt."""
    gateway = start_gateway(GATEWAY_COMMENT_S=0.2)
    with gateway.http.stream("POST", CHAT, json=stream("hang")) as answer:
        assert read_comments(answer, 2).count(COMMENT) == 2
    assert own_worker.next().gone.wait(WAIT_S)
    assert gateway.logged(answer)["ending"] == "client_gone"
    wait_until(lambda: gateway.in_flight() == 0, "the lease given back")
