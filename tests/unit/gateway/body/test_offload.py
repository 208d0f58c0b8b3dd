"""Bodies are decoded in turns and within the budget, and nobody who has left is told of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from gateway.body.budget import BodyBudget
from gateway.body.content_coding import TURN_BYTES, Decoding
from gateway.body.offload import Offload
from gateway.server.connection import ClientConnection
from tests.simulation import SLUG, Line, Stage

MIB = 1 << 20
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"


def zipped(padding: str = "") -> bytes:
    body = gzip.compress(json.dumps({"model": SLUG, "messages": [], "padding": padding}).encode(), 1)
    return HEAD % len(body) + body


def ask(stage: Stage, request: bytes) -> Line:
    line = stage.connect(ClientConnection(stage.listener))
    line.send(request)
    return line


async def test_a_short_body_overtakes_long_ones() -> None:
    """It waits for one turn of each that came before it, and a turn makes little more than its bound."""
    offload, ended, grown, done = (
        Offload(asyncio.get_running_loop()),
        list[str](),
        list[int](),
        asyncio.Event(),
    )

    def decode(name: str, content: bytes) -> None:
        decoding = Decoding([gzip.compress(content, 1)], "gzip", 50 * MIB)

        def tell(error: BaseException | None) -> bool:
            assert error is None
            grown.append(decoding.grown)
            if decoding.body is None:
                return True
            assert decoding.body == content
            ended.append(name)
            if len(ended) == 5:
                done.set()
            return False

        offload.decode(decoding, tell)

    for _ in range(4):
        decode("long", os.urandom(2 * MIB).hex().encode())
    decode("short", b"{}")
    await done.wait()
    assert ended == ["short", *["long"] * 4]
    assert max(grown) < 2 * TURN_BYTES


async def test_neither_a_fault_nor_a_thread_that_cannot_start_stops_the_desk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who meets it is told, and the next body is decoded."""
    loop, faults = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    offload, told = Offload(loop), asyncio.Queue[BaseException | None]()
    no_thread, wrong = RuntimeError("can't start new thread"), ZeroDivisionError()

    def decode(fault: Exception | None = None) -> None:
        def tell(error: BaseException | None) -> bool:
            told.put_nowait(error)
            if fault is not None:
                raise fault
            return False

        offload.decode(Decoding([b"{}"], None, MIB), tell)

    def refuse(*_: object) -> None:
        raise no_thread

    with monkeypatch.context() as patched:
        patched.setattr(offload._executor, "submit", refuse)
        decode()
    assert await asyncio.wait_for(told.get(), 30) is no_thread
    decode(wrong)
    decode()
    assert [await asyncio.wait_for(told.get(), 30) for _ in range(2)] == [None, None]
    assert faults == [wrong]


def test_what_is_decoded_counts_as_it_grows() -> None:
    """Where others hold what there is, it is refused before it is whole; and all is given back."""
    stage = Stage()
    stage.listener.budget = BodyBudget(8 * MIB)
    assert stage.listener.budget.take(3 * MIB, 0, 0)
    line = ask(stage, zipped(os.urandom(3 * MIB).hex()))
    stage.loop.settle()
    assert line.out.startswith(b"HTTP/1.1 503 ")
    assert b'"overloaded"' in line.out
    assert (stage.listener.budget.used, stage.log.faults) == (3 * MIB, [])
    stage.close()


class Held:
    """A thread that ends its work when the test says so."""

    def __init__(self, stage: Stage) -> None:
        self._loop = stage.loop
        self._works: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []

    def take(self, _executor: object, work: Callable[[], Any]) -> asyncio.Future[Any]:
        self._works.append((self._loop.create_future(), work))
        return self._works[-1][0]

    def end(self) -> None:
        future, work = self._works.pop(0)
        future.set_result(work())


def test_who_leaves_when_decoding_has_just_ended_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the decoding is told in the turn of the loop in which the client is lost: no fault, and no request."""
    stage = Stage()
    held = Held(stage)
    monkeypatch.setattr(stage.loop, "run_in_executor", held.take)
    for _ in range(3):
        line = ask(stage, zipped())
        stage.loop.settle()
        line.reset()
        held.end()
        stage.loop.settle()
    assert (stage.log.faults, stage.listener.budget.used, stage.loop.lines) == ([], 0, [])
    stage.close()


def test_who_leaves_while_it_waits_for_a_turn_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others behind it go on."""
    stage = Stage()
    held = Held(stage)
    monkeypatch.setattr(stage.loop, "run_in_executor", held.take)
    first, second, third = [ask(stage, zipped()) for _ in range(3)]
    stage.loop.settle()
    second.reset()
    stage.loop.settle()
    for _ in range(2):
        held.end()
        stage.loop.settle()
    assert len(stage.loop.lines) == 2
    assert [line.closed for line in (first, second, third)] == [False, True, False]
    stage.close()


def test_a_body_whose_turn_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is each that waits behind it: 503, for which its client may try again."""
    stage = Stage()
    monkeypatch.setattr(stage.loop, "run_in_executor", Held(stage).take)
    lines = [ask(stage, zipped()) for _ in range(3)]
    stage.look(59)
    assert [line.out for line in lines] == [b"", b"", b""]
    stage.look(2)
    for line in lines:
        assert line.out.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: " in line.out
        assert b'"overloaded"' in line.out
    assert (stage.listener.budget.used, stage.log.faults) == (0, [])
    stage.close()


def test_a_body_that_is_read_for_too_long_is_given_up() -> None:
    """Likewise where it is read in turns with others on the loop."""
    stage = Stage()
    body = json.dumps({"model": SLUG, "messages": [], "padding": "x" * MIB}).encode()
    line = ask(stage, HEAD.replace(b"content-encoding: gzip\r\n", b"") % len(body) + body)
    assert stage.loop.turn(after=61)
    for connection in stage.listener.connections:
        connection.check_deadlines(stage.loop.time())
    stage.loop.settle()
    assert line.out.startswith(b"HTTP/1.1 503 ")
    assert (stage.listener.budget.used, stage.loop.lines, stage.log.faults) == (0, [], [])
    stage.close()
