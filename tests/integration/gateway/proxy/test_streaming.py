"""Streams: the worker's bytes, at the pace at which the worker sends them."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from openai import OpenAI, Stream
from openai.types.chat import ChatCompletionChunk

from tests.fake_worker import DONE, FakeWorker, event
from tests.integration.gateway.harness import CHAT, Gateway, ask, post, read_to_end

DELAY_S = 0.05
WHOLE = b"".join(event(number) for number in range(5)) + DONE


def test_a_stream_is_byte_identical(gateway: Gateway, worker: FakeWorker) -> None:
    """A stream's bytes are the worker's, with [DONE] and under its content type."""
    answer = gateway.chat("alpha", "sse", chunks=5)
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_chunks_arrive_as_they_are_made(gateway: Gateway, worker: FakeWorker) -> None:
    """Chunks that a worker makes 50 ms apart reach the client one by one, as far apart."""
    with gateway.http.stream("POST", CHAT, json=ask("alpha", "sse", chunks=6, delay_s=DELAY_S)) as answer:
        arrivals = [(time.monotonic(), chunk) for chunk in answer.iter_raw()]
    events = [moment for moment, chunk in arrivals if b"word" in chunk]
    assert len(events) == 6
    assert all(later - earlier > DELAY_S / 2 for earlier, later in pairwise(events))


def test_the_first_chunk_does_not_wait_for_the_second(gateway: Gateway, worker: FakeWorker) -> None:
    """A chunk is in the client's hands while the worker holds the next one back."""
    with gateway.http.stream("POST", CHAT, json=ask("alpha", "sse", chunks=2, hold=1)) as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == event(0)
        worker.next().go_on()
        assert b"".join(chunks) == event(1) + DONE


def test_a_worker_that_dies_behind_its_head(gateway: Gateway, worker: FakeWorker) -> None:
    """vLLM sends a stream's head before it has read the prompt: until the first event an error is still a status."""
    for end in ("drop", "clean"):
        answer = gateway.chat("alpha", "sse", chunks=0, end=end)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_disconnected")


def test_a_stream_that_ends_within_its_first_event(gateway: Gateway, worker: FakeWorker) -> None:
    """However regular its end looks: events that are read are held until they are whole, so the error is a status."""
    answer = gateway.chat("thinker", "pieces", pieces=['data: {"id"'])
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_disconnected")


def test_a_stream_with_a_length_is_framed_anew(gateway: Gateway, worker: FakeWorker) -> None:
    """A worker, or what stands before it, may tell a stream's length; what is taken out of it makes that untrue."""
    text = event(0).decode()
    cut = {
        "do": "cut",
        "frame": "length",
        "kind": "text/event-stream",
        "text": text,
        "chunks": [],
        "writes": [64],
    }
    answer = gateway.http.post(CHAT, json=ask("alpha") | {"stream": True, "script": cut})
    assert (answer.content, "content-length" in answer.headers) == (event(0) + DONE, False)


def test_the_response_that_a_stream_begins_with_can_be_asked_for(
    gateway: Gateway, worker: FakeWorker
) -> None:
    """Its first event tells the id, before any event in which there is something else to read."""
    events = [
        ": one more packet than the head's\n\n",
        'event: response.created\ndata: {"response":{"id":"resp_1"}}\n\n',
        "event: response.completed\ndata: {}\n\n",
    ]
    script = {"do": "pieces", "pieces": events}
    told = gateway.http.post("/v1/responses", json={"model": "alpha", "stream": True, "script": script})
    assert told.text == "".join(events)
    assert gateway.http.get("/v1/responses/resp_1").status_code == 200
    assert [worker.next().target for _ in range(2)] == ["/v1/responses", "/v1/responses/resp_1"]


def test_the_openai_client_reads_a_stream(gateway: Gateway, worker: FakeWorker) -> None:
    """The openai client has the first chunks while the worker holds the others back."""
    chunks = iter(chat_stream(gateway.openai, {"script": {"do": "sse", "chunks": 4, "hold": 2}}))
    early = [next(chunks) for _ in range(2)]
    worker.next().go_on()
    assert [chunk.choices[0].delta.content for chunk in (*early, *chunks)] == [
        f" word{at}" for at in range(4)
    ]


@pytest.mark.parametrize("size", [1, 200_000])
def test_chunks_of_any_size_pass(gateway: Gateway, worker: FakeWorker, size: int) -> None:
    """Many small chunks in one packet and chunks beyond the read-ahead come through whole."""
    answer = (
        gateway.chat("alpha", "flood", bytes=size * 100)
        if size > 1
        else gateway.chat("alpha", "sse", chunks=500)
    )
    assert answer.content.endswith(DONE)
    assert len(answer.content) == worker.next().payload_bytes


def test_a_client_that_stops_at_done_has_the_whole_answer(gateway: Gateway, worker: FakeWorker) -> None:
    """A client that leaves after [DONE], before the body's end, as the openai client may, counts as complete."""
    with gateway.http.stream("POST", CHAT, json=ask("alpha", "sse", chunks=1, end="done_held")) as answer:
        for chunk in answer.iter_raw():
            if chunk.endswith(DONE):
                break
    worker.next().gone.wait(5)
    line = gateway.logged(answer)
    assert (line["status"], line["ending"]) == (200, "complete")


def test_a_client_of_http_1_0_gets_a_stream_without_chunks(gateway: Gateway, worker: FakeWorker) -> None:
    """HTTP/1.0 knows no chunked bodies: the stream's end is the connection's."""
    request = post(json.dumps(ask("alpha", "sse", chunks=5)).encode()).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with gateway.connect(request) as connection:
        head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == WHOLE


def chat_stream(client: OpenAI, script: dict[str, object]) -> Stream[ChatCompletionChunk]:
    return client.chat.completions.create(
        model="alpha", messages=[{"role": "user", "content": "x"}], stream=True, extra_body=script
    )
