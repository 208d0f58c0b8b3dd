"""Every route: what reaches the worker, what comes back in which words, and where stored responses are found."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway.api.routes import TABLE, Kind, Route, spellings
from tests.fake_worker import COMPLETION, FakeWorker
from tests.integration.gateway.harness import Gateway, Pools, post, read_to_end

JSON_ROUTES = [route for route in TABLE if route.kind is Kind.JSON]
FORM_ROUTES = [route for route in TABLE if route.kind is Kind.FORM]
# Spacing, order, escapes and a number that no serializer would write again.
BODY = b'{ "b":1.0e0,"model" : "alpha",\n "a":"\\u4f60\\/ \xe4\xbd\xa0" }'
FORM = {"content-type": "multipart/form-data; boundary=frontier"}
RECORDING = bytes(range(256)) * 400
LASTS = {
    "responses": ["response.completed", "response.incomplete", "response.failed"],
    "messages": ["message_stop"],
}
STREAMS = [(name, last) for name, lasts in LASTS.items() for last in lasts]


def form(model: str) -> bytes:
    """A recording and the name of a model, as a browser would send them."""
    head = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    field = b'\r\n--frontier\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
    return head + RECORDING + field + model.encode() + b"\r\n--frontier--\r\n"


def events(*names: str) -> list[str]:
    return [f'event: {name}\ndata: {{"type":"{name}"}}\n\n' for name in names]


def stream_of(gateway: Gateway, route: str, pieces: list[str], **script: object) -> bytes:
    """The raw answer of a stream that the worker makes of `pieces`."""
    body = {"model": "alpha", "stream": True, "script": {"do": "pieces", "pieces": pieces, **script}}
    request = post(json.dumps(body).encode(), "connection: close")
    with gateway.connect(request.replace(b"/v1/chat/completions", f"/v1/{route}".encode(), 1)) as connection:
        return read_to_end(connection)


def store(gateway: Gateway, response: str, **fields: object) -> httpx.Response:
    """Has a worker of `pair` make the response `response`."""
    pieces = [json.dumps({"id": response, "object": "response"}, separators=(",", ":"))]
    script = {"do": "pieces", "pieces": pieces, "json": True}
    return gateway.http.post("/v1/responses", json={"model": "pair", "script": script, **fields})


def holder(pool: list[FakeWorker]) -> FakeWorker:
    """Which of two workers has seen the one request since."""
    assert sum(not worker.seen.empty() for worker in pool) == 1
    return next(worker for worker in pool if not worker.seen.empty())


@pytest.fixture
def pair(fleet: Pools) -> list[FakeWorker]:
    for worker in fleet["pair"]:
        worker.forget()
    return list(fleet["pair"])


@pytest.mark.parametrize("route", JSON_ROUTES, ids=lambda route: route.name)
def test_a_body_of_json(gateway: Gateway, worker: FakeWorker, route: Route) -> None:
    """Reaches the worker at its own path with every byte as it was; so does the answer the client."""
    answer = gateway.http.post(
        route.path.decode(), content=BODY, headers={"content-type": "application/json"}
    )
    seen = worker.next()
    assert (seen.method, seen.target, seen.body) == ("POST", route.at_worker.decode(), BODY)
    assert answer.content == COMPLETION
    assert gateway.logged(answer)["route"] == route.name


@pytest.mark.parametrize("route", JSON_ROUTES, ids=lambda route: route.name)
def test_other_spellings_of_a_path(gateway: Gateway, worker: FakeWorker, route: Route) -> None:
    """vLLM's own ones are served too, and each with a slash at its end; the worker is asked under one of its paths."""
    for path in spellings(route):
        for slash in (b"", b"/"):
            answer = gateway.http.post((path + slash).decode(), content=BODY)
            assert answer.content == COMPLETION
            assert gateway.logged(answer)["route"] == route.name
            assert worker.next().target == route.at_worker.decode()


@pytest.mark.parametrize("route", FORM_ROUTES, ids=lambda route: route.name)
def test_a_recording(gateway: Gateway, worker: FakeWorker, route: Route) -> None:
    """A multipart body finds its model's worker and arrives byte by byte, under its content type."""
    answer = gateway.http.post(route.path.decode(), content=form("alpha"), headers=FORM)
    seen = worker.next()
    assert (seen.target, seen.body) == (route.path.decode(), form("alpha"))
    assert dict(seen.headers)["content-type"] == FORM["content-type"]
    assert answer.content == COMPLETION


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (form("nothing"), FORM, 404),
        (form("alpha").replace(b'"model"', b'"other"'), FORM, 400),
        (form("alpha"), {"content-type": "multipart/form-data"}, 400),
        (BODY, {"content-type": "application/json"}, 400),
    ],
)
def test_a_recording_for_nobody(
    gateway: Gateway, worker: FakeWorker, content: bytes, headers: dict[str, str], status: int
) -> None:
    """Without a model that is there, or as something else than multipart, it is refused."""
    answer = gateway.http.post("/v1/audio/transcriptions", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert worker.seen.empty()


@pytest.mark.parametrize(("route", "last"), STREAMS)
def test_a_whole_stream(gateway: Gateway, worker: FakeWorker, route: str, last: str) -> None:
    """Ends with its route's own last event, and nothing is missed for want of [DONE]."""
    pieces = events("first", last)
    answer = stream_of(gateway, route, pieces)
    assert answer.endswith(b"0\r\n\r\n")
    assert all(piece.encode() in answer for piece in pieces)
    assert b"event: error" not in answer
    assert gateway.event("request", id=request_id(answer))["ending"] == "complete"


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("route", LASTS)
def test_a_stream_without_its_last_event(
    gateway: Gateway, worker: FakeWorker, route: str, drop: bool
) -> None:
    """Is broken however it ends: an error event in the route's own words, and no end of the body."""
    answer = stream_of(gateway, route, events("first", "second"), drop=drop)
    assert not answer.endswith(b"0\r\n\r\n")
    error = json.loads(answer.rpartition(b"event: error\ndata: ")[2].split(b"\n\n")[0])
    if route == "messages":
        assert (error["type"], error["error"]["type"]) == ("error", "api_error")
    else:
        assert error["error"]["code"] == "upstream_disconnected"
    assert gateway.event("request", id=request_id(answer))["ending"] == "broken"


@pytest.mark.parametrize("route", LASTS)
def test_a_stream_that_ends_with_the_workers_error(gateway: Gateway, worker: FakeWorker, route: str) -> None:
    """The worker has had its last word: nothing is put behind it, and it is not blamed."""
    before = gateway.metric("gateway_worker_failures_total")
    pieces = events("first", "error")
    answer = stream_of(gateway, route, pieces)
    assert answer.count(b"event: error") == 1
    assert gateway.event("request", id=request_id(answer))["ending"] == "complete"
    assert gateway.metric("gateway_worker_failures_total") == before


def request_id(answer: bytes) -> str:
    return answer.partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode()


def test_errors_of_messages(gateway: Gateway, worker: FakeWorker) -> None:
    """Anthropic's clients find Anthropic's error object."""
    cases: list[tuple[bytes, int, str]] = [
        (b"{", 400, "invalid_request_error"),
        (b'{"model":"nothing"}', 404, "not_found_error"),
        (b'{"model":"starting"}', 503, "overloaded_error"),
    ]
    for body, status, kind in cases:
        answer = gateway.http.post("/v1/messages", content=body)
        error: dict[str, Any] = answer.json()
        assert (answer.status_code, error["type"], error["error"]["type"]) == (status, "error", kind)
        assert set(error["error"]) == {"type", "message"}


def test_a_stored_response_stays_where_it_is(gateway: Gateway, pair: list[FakeWorker]) -> None:
    """Retrieval, cancelling and the next turn go to the worker that has made it, of two."""
    for number in range(6):
        response = f"resp_stays{number}"
        assert store(gateway, response).status_code == 200
        worker = holder(pair)
        worker.forget()
        assert gateway.http.get(f"/v1/responses/{response}").content == COMPLETION
        assert gateway.http.post(f"/v1/responses/{response}/cancel").content == COMPLETION
        assert store(gateway, "resp_next", previous_response_id=response).status_code == 200
        seen = [worker.next() for _ in range(3)]
        assert [(one.method, one.target) for one in seen] == [
            ("GET", f"/v1/responses/{response}"),
            ("POST", f"/v1/responses/{response}/cancel"),
            ("POST", "/v1/responses"),
        ]


def test_a_query_goes_along(gateway: Gateway, pair: list[FakeWorker]) -> None:
    """How a stored response is to be told is the client's to say."""
    store(gateway, "resp_query")
    worker = holder(pair)
    worker.forget()
    gateway.http.get("/v1/responses/resp_query?stream=false&starting_after=3")
    assert worker.next().target == "/v1/responses/resp_query?stream=false&starting_after=3"


def test_a_response_that_is_being_made(gateway: Gateway, pair: list[FakeWorker]) -> None:
    """Its stream's first event tells the id, and from then on it can be cancelled."""
    created = 'event: response.created\ndata: {"response":{"id":"resp_made"}}\n\n'
    pieces = ["event: a\ndata: {}\n\n", created, *events("response.completed")]
    script = {"do": "pieces", "pieces": pieces[:2], "hold": 2}
    body = {"model": "pair", "stream": True, "script": script}
    with gateway.http.stream("POST", "/v1/responses", json=body) as answer:
        received = b""
        for chunk in answer.iter_raw():
            received += chunk
            if received.endswith(created.encode()):
                break
        worker = holder(pair)
        assert gateway.http.post("/v1/responses/resp_made/cancel").status_code == 200
        assert [worker.next().target for _ in range(2)] == ["/v1/responses", "/v1/responses/resp_made/cancel"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/responses/resp_unknown", None),
        ("POST", "/v1/responses/resp_unknown/cancel", None),
        ("POST", "/v1/responses", {"model": "pair", "previous_response_id": "resp_unknown"}),
    ],
)
def test_a_response_that_nobody_has(
    gateway: Gateway, pair: list[FakeWorker], method: str, path: str, body: object
) -> None:
    """Is 404, in words that say what keeps responses, once every worker that may have it was asked."""
    answer = gateway.http.request(method, path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "invalid_request")
    assert "VLLM_ENABLE_RESPONSES_API_STORE" in error["message"]
    assert [worker.seen.qsize() for worker in pair] == [1, 1]
    assert gateway.logged(answer)["attempts"] == 1


def test_the_document_lists_every_route(gateway: Gateway) -> None:
    """/openapi.json knows each row by its path, method and kind of body."""
    paths = gateway.http.get("/openapi.json").json()["paths"]
    for route in TABLE:
        operation = paths[route.path.decode()][route.method.decode().lower()]
        assert operation["operationId"] == route.name
        kinds = list(operation.get("requestBody", {}).get("content", {}))
        wanted = {Kind.JSON: ["application/json"], Kind.FORM: ["multipart/form-data"], Kind.STORED: []}
        assert kinds == wanted[route.kind]
