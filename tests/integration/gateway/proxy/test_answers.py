"""What passes between client and worker: the bytes of both, and no more of the headers than is meant to."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import openai
import pytest

from tests.fake_worker import COMPLETION, MAX_MODEL_LEN, FakeWorker
from tests.integration.gateway.conftest import StartGateway, StartWorker
from tests.integration.gateway.harness import CHAT, COMPLETIONS, Gateway, Site, ask, post, read_to_end

# As no serializer would write it: what arrives unchanged has not been parsed and made again.
ODD_REQUEST = (
    b'{ "model":"alpha" ,\n"messages":[{"role":"user","content":"\\u4f60 \xe5\xa5\xbd"}],"x":1.50,"x":2e0}'
)


def test_a_json_answer_is_byte_identical(gateway: Gateway, worker: FakeWorker) -> None:
    """Status and body of a JSON answer are the worker's own."""
    answer = gateway.chat("alpha")
    assert (answer.status_code, answer.content) == (200, COMPLETION)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
def test_a_request_is_byte_identical(gateway: Gateway, worker: FakeWorker, route: str) -> None:
    """The worker gets the client's body untouched, on the same route, with a right length."""
    gateway.http.post(route, content=ODD_REQUEST, headers={"content-type": "application/json"})
    seen = worker.next()
    assert (seen.method, seen.target, seen.body) == ("POST", route, ODD_REQUEST)
    assert dict(seen.headers)["content-length"] == str(len(ODD_REQUEST))


def test_a_chunked_request_arrives_whole(gateway: Gateway, worker: FakeWorker) -> None:
    """A request body sent in chunks reaches the worker as one body with its length."""
    pieces = [ODD_REQUEST[:7], ODD_REQUEST[7:50], ODD_REQUEST[50:]]
    assert gateway.http.post(CHAT, content=iter(pieces)).content == COMPLETION
    seen = worker.next()
    names = [name for name, _ in seen.headers]
    assert seen.body == ODD_REQUEST
    assert (names.count("content-length"), names.count("transfer-encoding")) == (1, 0)


def test_nothing_of_the_client_reaches_a_worker(gateway: Gateway, worker: FakeWorker) -> None:
    """Of a client's headers only content-type, accept and the trace context pass; ids and length are the gateway's."""
    sent = {
        "authorization": "Bearer secret", "cookie": "a=b", "x-forwarded-for": "1.2.3.4", "x-real-ip": "1.2.3.4",
        "x-request-id": "from-the-client", "proxy-authorization": "Basic eA==", "te": "trailers",
        "connection": "keep-alive, x-mine", "x-mine": "1", "x-any": "1", "accept": "text/event-stream",
        "traceparent": "00-1-2-01", "tracestate": "a=1", "content-type": "application/json",
    }  # fmt: skip
    answer = gateway.http.post(CHAT + "?key=secret", content=ODD_REQUEST, headers=sent)
    seen = worker.next()
    assert answer.headers["x-request-id"] == "from-the-client"
    told = dict(seen.headers)
    assert told.pop("x-request-id").startswith("from-the-client-")
    assert told == {
        "host": worker.address, "content-type": "application/json", "accept": "text/event-stream",
        "traceparent": "00-1-2-01", "tracestate": "a=1", "content-length": str(len(ODD_REQUEST)),
    }  # fmt: skip
    assert seen.target == CHAT


def test_an_encoded_path_is_sent_in_its_plain_form(gateway: Gateway, worker: FakeWorker) -> None:
    """A worker never sees a target that is not one of the table's, however the client has spelt it."""
    for spelling in (
        b"/v1/chat%2fcompletions",
        b"/v1/%63hat/completions",
        b"http://gateway/v1/chat/completions",
    ):
        request = post(ODD_REQUEST, "connection: close").replace(CHAT.encode(), spelling, 1)
        with gateway.connect(request) as connection:
            assert read_to_end(connection).endswith(COMPLETION)
        assert worker.next().target == CHAT


def test_an_upgrade_that_is_not_taken_costs_nothing(start_gateway: StartGateway) -> None:
    """A client that offers HTTP/2 on every request, as Java's does, gets its answer over HTTP/1.1."""
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAEAAEAAAAIAAAAB"}
    gateway = start_gateway()
    for _ in range(2):
        assert gateway.http.post(CHAT, content=ODD_REQUEST, headers=offer).content == COMPLETION


def test_hop_by_hop_headers_of_a_worker_stay_behind(gateway: Gateway, worker: FakeWorker) -> None:
    """What belongs to the worker's connection does not reach the client, nor what any Connection field names."""
    headers = gateway.chat("alpha", "hop").headers
    assert not {"connection", "keep-alive", "x-private", "x-too", "server"} & set(headers)
    assert headers["x-kept"] == "1"


def test_every_answer_has_an_id_and_is_not_cached(gateway: Gateway, worker: FakeWorker) -> None:
    """Without one of the client's it is the gateway's own; nothing on the way may cache or buffer."""
    answers = [gateway.chat("alpha"), gateway.chat("nobody"), gateway.chat("alpha", "error", status=400)]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    for answer in answers:
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
        assert len(answer.headers.get_list("date")) == 1


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_workers_error_passes_unchanged(gateway: Gateway, worker: FakeWorker, status: int) -> None:
    """A worker's own refusal reaches the client as it is, and is not marked as the gateway's."""
    answer = gateway.chat("alpha", "error", status=status)
    error = {"message": "told by the worker", "type": "BadRequestError", "param": None, "code": status}
    assert (answer.status_code, json.loads(answer.content)) == (status, {"error": error})
    assert "x-gateway-error" not in answer.headers


def test_a_string_error_passes_unchanged(gateway: Gateway, worker: FakeWorker) -> None:
    """vLLM's 401, whose error is a string, is not made into an object."""
    answer = gateway.chat("alpha", "unauthorized")
    assert (answer.status_code, answer.content) == (401, b'{"error":"Unauthorized"}')


def test_the_openai_client_is_served(gateway: Gateway, worker: FakeWorker) -> None:
    """The openai client needs an address and a name, nothing else."""
    completion = gateway.openai.chat.completions.create(
        model="alpha-chat", messages=[{"role": "user", "content": "x"}]
    )
    assert completion.choices[0].message.content == "你好 你好"
    with pytest.raises(openai.BadRequestError, match="told by the worker"):
        gateway.openai.chat.completions.create(
            model="alpha", messages=[], extra_body={"script": {"do": "error", "status": 400}}
        )


def test_an_interim_answer_is_not_the_answer(gateway: Gateway, worker: FakeWorker) -> None:
    """A worker's 1xx is passed over; the client gets the final answer."""
    answer = gateway.chat("alpha", "interim")
    assert (answer.status_code, answer.content) == (200, COMPLETION)


def test_a_second_answer_is_not_mixed_into_the_first(gateway: Gateway, worker: FakeWorker) -> None:
    """Bytes that follow a complete answer reach no client, and the connection that carried them is not used again."""
    answer = gateway.chat("alpha", "twice")
    assert (answer.status_code, answer.content) == (200, b"{}")
    assert "x-second" not in answer.headers
    used = worker.next().connection
    assert gateway.chat("alpha").content == COMPLETION
    assert worker.next().connection != used


def test_requests_one_after_another_share_a_worker_connection(gateway: Gateway, worker: FakeWorker) -> None:
    """A complete answer leaves its connection to the next request, after a stream as after JSON."""
    gateway.chat("alpha")
    gateway.chat("alpha", "sse")
    gateway.chat("alpha", "error", status=400)
    assert len({worker.next().connection for _ in range(3)}) == 1


def test_pipelined_requests_are_answered_in_order(gateway: Gateway, worker: FakeWorker) -> None:
    """Two requests in one packet get their two answers, the first one first."""
    first, last = (json.dumps(ask("alpha", "error", status=status)).encode() for status in (400, 429))
    with gateway.connect(post(first) + post(last, "connection: close")) as connection:
        answers = read_to_end(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"400", b"429"]


def test_a_head_request_gets_no_body(gateway: Gateway) -> None:
    """HEAD on a proxied route is refused with headers alone, and the connection lives on."""
    answer = gateway.http.request("HEAD", CHAT)
    assert (answer.status_code, answer.content) == (405, b"")
    assert gateway.http.get("/health").json() == {"status": "ok"}


def test_http_1_0_clients_are_served(gateway: Gateway, worker: FakeWorker) -> None:
    """A client of HTTP/1.0 gets its answer and the end of the connection."""
    with gateway.connect(post(ODD_REQUEST).replace(b"HTTP/1.1", b"HTTP/1.0", 1)) as connection:
        assert read_to_end(connection).endswith(COMPLETION)


def test_the_client_may_wait_for_100_continue(gateway: Gateway, worker: FakeWorker) -> None:
    """`Expect: 100-continue` is answered before the body is sent, and does not reach the worker."""
    head, body = post(ODD_REQUEST, "expect: 100-continue", "connection: close").split(b"\r\n\r\n", 1)
    with gateway.connect(head + b"\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        assert read_to_end(connection).endswith(COMPLETION)
    assert "expect" not in dict(worker.next().headers)


SERVING = "{context: 8192, parsers: {reasoning: qwen3, tools: hermes}, images: {per_prompt: 8}}"


def test_models_are_a_list_in_openais_shape(gateway: Gateway) -> None:
    """/v1/models lists ready models by every name of theirs, and nothing else."""
    assert [model.id for model in gateway.openai.models.list()] == ["alpha", "alpha-chat", "pair", "thinker"]
    assert gateway.openai.models.retrieve("alpha-chat").id == "alpha-chat"
    missing = gateway.http.get("/v1/models/absent")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_a_model_says_what_a_client_can_size_itself_by(
    site: Site, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Context, root and parent as its workers give them, and the card's context, images, parsers and other names."""
    site.declare("alpha", "alpha", "alpha-chat", serving=SERVING)
    worker = start_worker("alpha", "alpha-chat")
    site.attach({"alpha": [worker]})
    (tmp_path / "models.yaml").write_text("aliases: {fast: {model: alpha}}\n")
    gateway = Gateway(site, GATEWAY_MODELS_FILE=tmp_path / "models.yaml")
    try:
        gateway.wait_for("alpha", "ready")
        expected = {
            "object": "model", "owned_by": "o", "root": "/weights/any", "parent": None, "max_model_len": MAX_MODEL_LEN,
            "context": 8192, "images": {"per_prompt": 8}, "parsers": {"reasoning": "qwen3", "tools": "hermes"},
        }  # fmt: skip
        listed = {one.id: one.model_dump(exclude_unset=True) for one in gateway.openai.models.list()}
        names = {"alpha", "alpha-chat", "fast"}
        assert listed.keys() == names
        for name in names:
            one = gateway.openai.models.retrieve(name).model_dump(exclude_unset=True)
            assert one == listed[name]
            assert set(one.pop("aliases")) == names - {name}
            assert (one.pop("id"), one.pop("created") > 0) == (name, True)
            assert one == expected
    finally:
        gateway.terminate()
        gateway.end()


def test_health_needs_no_model(gateway: Gateway) -> None:
    """/health says that the process lives."""
    assert httpx.get(f"http://{gateway.address}/health").status_code == 200


def test_no_header_lets_a_client_choose_its_place(gateway: Gateway, worker: FakeWorker) -> None:
    """vLLM takes a priority and an engine from headers: a client's do not reach it."""
    chosen = {"X-Vllm-Priority": "-5", "X-data-parallel-rank": "0", "X-Session-Id": "1"}
    gateway.http.post(CHAT, json=ask("alpha"), headers=chosen)
    assert not {name.lower() for name in chosen} & {name.lower() for name, _ in worker.next().headers}


TAKEN = ["my-trace-1", "Root=1-67891233:abc", "a" * 128, "7"]
REPLACED = ["a" * 129, "a b", "a,b", "a/b", "\u00e4".encode(), ""]


@pytest.mark.parametrize("given", TAKEN)
def test_a_clients_request_id_is_kept(gateway: Gateway, worker: FakeWorker, given: str) -> None:
    """It is answered, with an error too, and logged beside the id that the worker got: no two requests share that."""
    named = {"x-request-id": given}
    answers = [
        gateway.http.post(CHAT, json=ask("alpha"), headers=named),
        gateway.http.post(CHAT, json=ask("alpha", "sse"), headers=named),
        gateway.http.post(CHAT, json=ask("nobody"), headers=named),
        gateway.http.get(CHAT, headers=named),
    ]
    assert {answer.headers["x-request-id"] for answer in answers} == {given}
    lines = gateway.several(4, "request", id=given)
    sent = [dict(worker.next().headers)["x-request-id"] for _ in range(2)]
    assert [line["sent_id"] for line in lines[:2]] == sent
    assert all(one.startswith(given + "-") for one in sent)
    assert len({line["sent_id"] for line in lines}) == 4


@pytest.mark.parametrize("given", REPLACED)
def test_any_other_request_id_is_replaced(gateway: Gateway, worker: FakeWorker, given: str | bytes) -> None:
    """What is long, or more than letters, digits and a few signs, is in no log and reaches no worker."""
    answer = gateway.http.post(CHAT, json=ask("alpha"), headers={"x-request-id": given})
    own = answer.headers["x-request-id"]
    assert len(own) == 32
    assert dict(worker.next().headers)["x-request-id"] == own
    assert gateway.logged(answer)["sent_id"] == own
