"""A fault of the gateway's own, planted in what its loop tells: a 500 or an error event, and no worker is to blame."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gateway.server.connection import ClientConnection
from tests.simulation import SLUG, Line, Stage

BODY = json.dumps({"model": SLUG, "messages": [], "stream": True}).encode()
ASK = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: 1\n\n\r\n"


class Planted(Exception):
    """What goes wrong."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


def plant(stage: Stage, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The clock fails at its `at`-th reading from now, once."""
    whole, read = stage.loop.time, iter(range(at + 1))

    def time() -> float:
        if next(read, None) == at:
            raise Planted
        return whole()

    monkeypatch.setattr(stage.loop, "time", time)


def ask(stage: Stage) -> Line:
    client = stage.connect(ClientConnection(stage.listener))
    client.send(ASK)
    stage.loop.settle()
    return client


def check(stage: Stage, client: Line) -> None:
    """The fault is told once, the request is over, and the worker is as good as before."""
    stage.loop.settle()
    assert [type(fault) for fault in stage.log.faults] == [Planted]
    assert stage.worker.in_flight == 0
    assert sum(stage.gateway.fleet.failures.values()) == 0
    assert all(line.closed for line in stage.loop.lines)
    assert b"gateway_error" in client.out
    assert not client.out.endswith(b"0\r\n\r\n")


def test_a_connection_that_cannot_be_made_for_a_fault_of_ours(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is neither a refusal nor a time-out."""

    async def create_connection(*_: object, **__: object) -> None:
        raise Planted

    monkeypatch.setattr(stage.loop, "create_connection", create_connection)
    client = ask(stage)
    check(stage, client)
    assert client.out.startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("sent", [HEAD, HEAD + EVENT])
def test_a_fault_before_anything_is_out(stage: Stage, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """At the head, and at the first piece."""
    client = ask(stage)
    plant(stage, monkeypatch, 0)
    stage.loop.lines[0].send(sent)
    check(stage, client)
    assert client.out.startswith(b"HTTP/1.1 500 ")


def test_a_fault_within_a_stream(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error event behind what was sent, and no end."""
    client = ask(stage)
    stage.loop.lines[0].send(HEAD + EVENT)
    stage.loop.settle()
    plant(stage, monkeypatch, 0)
    stage.loop.lines[0].send(EVENT)
    check(stage, client)
    assert client.out.startswith(b"HTTP/1.1 200 ")


def test_a_fault_at_a_look(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the deadlines find is told, though the gateway fails at noting it."""
    client = ask(stage)
    stage.loop.pass_time(700)
    plant(stage, monkeypatch, 0)
    for connection in stage.listener.connections:
        connection.check_deadlines(1700.0)
    stage.loop.settle()
    assert stage.worker.in_flight == 0
    assert b"error" in client.out
    assert [type(fault) for fault in stage.log.faults] == [Planted]


def test_many_faults_eject_nobody(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty of them; the next request is answered."""
    for _ in range(20):
        client = ask(stage)
        with monkeypatch.context() as patch:
            plant(stage, patch, 0)
            stage.loop.lines[-1].send(HEAD)
            stage.loop.settle()
        assert client.out.startswith(b"HTTP/1.1 500 ")
    assert str(stage.worker.state) == "ready"
