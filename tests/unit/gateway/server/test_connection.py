"""A client's connection without a network: every change of its phase happens, and a fault of ours ends one request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.api.errors import GatewayError, GatewayFault, ModelNotFound
from gateway.http.states import PHASES, STAGES, Phase, Stage, changed
from gateway.server import connection as connections
from gateway.server import request as requests
from gateway.server.listener import Listener
from gateway.server.request import ClientRequest
from tests.simulation import Line
from tests.simulation import Stage as Scene

HEAD = b"POST /%b HTTP/1.1\r\nHost: a\r\n"
GET, CLOSE = HEAD % b"now" + b"\r\n", b"Connection: close\r\n"
LATER = HEAD % b"later" + b"\r\n"
SIZED = HEAD % b"later" + b"Content-Length: 4\r\n\r\n"
CHUNKED = HEAD % b"later" + b"Transfer-Encoding: chunked\r\n\r\n"
SMALL_CHUNKS, LAST_CHUNK = b"1;a\r\nx\r\n" * 20_000, b"0\r\n\r\n"
ENDS = (f" {Phase.CLOSED!r}", f" {Stage.OVER!r}")  # which may follow any
MUCH = 20_000_000


@pytest.fixture
def stage() -> Iterator[Scene]:
    stage = Scene()
    yield stage
    stage.close()


class Answer:
    """Answers as the path says: at once or when it is told to. A path `faulty-CALLBACK` fails in that one."""

    def __init__(self, client: Client, request: ClientRequest) -> None:
        self.client = client
        self.request = request

    def start(self) -> None:
        self._fault("start")
        if self.request.path == b"/now":
            self.answer()
        elif self.request.path in (b"/faulty-resume", b"/faulty-pause", b"/faulty-begun"):
            self.request.begin(200, [])
            self.request.write(b"o" * MUCH)

    def answer(self, size: int = 2) -> None:
        self.request.begin(200, [(b"content-length", b"%d" % size)])
        self.request.write(b"o" * size)
        self.request.end()

    def fail(self, error: GatewayError) -> None:
        self._fault("fail")
        self.client.told.append(error)
        if self.request.begun:
            self.request.break_off()
        else:
            self.request.refuse(error, [])

    def check_deadlines(self, now: float) -> None:
        self._fault("look")
        self._fault("begun")

    def on_gone(self) -> None:
        self._fault("gone")
        self.client.told.append("gone")

    def end_at_shutdown(self) -> None:
        self._fault("shut")
        self.fail(ModelNotFound("The end"))

    def pause(self) -> None:
        self._fault("pause")

    def resume(self) -> None:
        self._fault("resume")

    def _fault(self, where: str) -> None:
        if self.request.path == b"/faulty-" + where.encode():
            raise ZeroDivisionError(where)


class Client:
    """One client, with a listener of its own. told: what its requests' handlers were told."""

    def __init__(self, stage: Scene) -> None:
        self.stage = stage
        self.told: list[object] = []
        self.reported: list[Exception] = []
        self.handlers: list[Answer] = []
        self.limit = 100
        self.listener: Listener = replace(stage.listener, prepare=self._prepare, report=self.reported.append)
        self.listener.closing = False
        self.connection = connections.ClientConnection(self.listener)
        self.line: Line = stage.connect(self.connection)

    def _prepare(self, request: ClientRequest) -> None:
        request.limit = self.limit
        request.handler = handler = Answer(self, request)
        self.handlers.append(handler)
        if request.path == b"/faulty-prepare":
            raise ZeroDivisionError("prepare")
        if request.path == b"/refused":
            request.refusal = ModelNotFound("There is no such model")

    def send(self, data: bytes) -> None:
        self.line.send(data)
        self.stage.loop.settle()

    def answer(self, size: int = 2) -> None:
        self.handlers[-1].answer(size)
        self.stage.loop.settle()

    def answer_and_hear(self) -> None:
        """The next request begins in the turn of the loop in which the answer is written."""
        self.handlers[-1].answer(20_000)
        self.line.send(GET[:5])
        self.stage.loop.settle()

    def look(self, seconds: float) -> None:
        self.stage.loop.pass_time(seconds)
        for connection in self.listener.connections:
            connection.check_deadlines(self.stage.loop.time())
        self.stage.loop.settle()

    def leave(self) -> None:
        self.line.leave()
        self.stage.loop.settle()

    def stop_reading(self) -> None:
        self.line.stop_reading()

    def shut(self) -> None:
        self.connection.end_at_shutdown()
        self.stage.loop.settle()

    @property
    def phase(self) -> Phase:
        return self.connection._phase


Step = bytes | Callable[[Client], object]
ANSWER: Step = Client.answer
LEAVE: Step = Client.leave
LIFE: Mapping[str, tuple[Step, ...]] = {
    "one after another, and idle": (GET, GET, lambda client: client.look(100)),
    "silence": (lambda client: client.look(100),),
    "it leaves at once": (LEAVE,),
    "it leaves in a head": (GET[:5], LEAVE),
    "it leaves between requests": (GET, LEAVE),
    "it leaves in a body": (SIZED, LEAVE),
    "it leaves before its answer": (LATER, LEAVE),
    "it leaves with another request sent": (LATER, GET, LEAVE, lambda client: client.look(1)),
    "an empty line alone": (b"\r", b"\n"),
    "a head in pieces": (GET[:5], GET[5:], GET[:5], GET[5:]),
    "a body in pieces": (SIZED[:5], SIZED[5:], b"ab", b"cd", ANSWER, SIZED, b"abcd", ANSWER),
    "a body that comes with its head": (SIZED + b"abcd", ANSWER, SIZED + b"ab", b"cd", ANSWER),
    "a last request in pieces": (GET[:5], GET[5:-2] + CLOSE + b"\r\n", lambda client: client.look(3)),
    "a last request with a body": (SIZED[:-2] + CLOSE + b"\r\n", b"abcd", ANSWER),
    "a last request, and the client leaves": (LATER[:-2] + CLOSE + b"\r\n", LEAVE),
    "a last request behind another": (GET, GET[:-2] + CLOSE + b"\r\n"),
    "requests behind one": (LATER, GET + GET, ANSWER),
    "half a request behind one": (LATER, GET[:9], ANSWER, GET[9:]),
    "the gateway ends meanwhile": (LATER, GET, lambda client: client.connection.close_when_idle(), ANSWER),
    "the gateway ends before the next": (LATER, lambda client: client.connection.close_when_idle(), ANSWER),
    "the gateway is shut in a body": (SIZED, Client.shut),
    "the gateway is shut": (LATER, Client.shut),
    "the gateway is shut with another request sent": (LATER, GET, Client.shut),
    "nonsense": (b"\x00", lambda client: client.look(3)),
    "nonsense in a head": (GET[:5], b"\x00"),
    "nonsense behind a request": (GET, b"\x00"),
    "nonsense in chunks": (HEAD % b"now" + b"Transfer-Encoding: chunked\r\n\r\n", b"x"),
    "a head that is late": (GET[:5], lambda client: client.look(100)),
    "a body that is late": (SIZED, lambda client: client.look(1000)),
    "too large a body": (HEAD % b"now" + b"Content-Length: 101\r\n\r\n",),
    "too large a body, in pieces": (b"P", HEAD[1:] % b"now" + b"Content-Length: 101\r\n\r\n"),
    "too large a body behind a request": (GET, HEAD % b"now" + b"Content-Length: 101\r\n\r\n"),
    "a refusal without a body": (HEAD % b"refused" + b"\r\n", GET),
    "a refusal before the body": (HEAD % b"refused" + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n",),
    "a body that is asked for": (SIZED[:-2] + b"Expect: 100-continue\r\n\r\n", b"abcd", ANSWER),
    "no body that is asked for": (LATER[:-2] + b"Expect: 100-continue\r\n\r\n", ANSWER),
    "a body that is not waited for": (SIZED[:-2] + b"Expect: 100-continue\r\n\r\nabcd", ANSWER),
    "it takes nothing of its answer and asks": (
        LATER, Client.stop_reading, lambda client: client.answer(MUCH), GET, lambda client: client.line.read_on(),
    ),
    "it has begun to ask when it takes no more": (
        LATER, Client.stop_reading, Client.answer_and_hear, GET[5:], lambda client: client.line.read_on(),
    ),
}  # fmt: skip


def play(client: Client, steps: tuple[Step, ...]) -> None:
    for step in steps:
        client.send(step) if isinstance(step, bytes) else step(client)
        client.stage.loop.settle()


def test_every_change_of_phase_happens(stage: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table allows what these lives need, and nothing else; none of them is a fault, and each ends."""
    seen: set[str] = set()

    def noted(table: object, old: object, new: object) -> object:
        seen.add(f"{old!r} {new!r}")
        return changed(table, old, new)  # type: ignore[type-var, arg-type]

    monkeypatch.setattr(connections, "changed", noted)
    monkeypatch.setattr(requests, "changed", noted)
    for steps in LIFE.values():
        client = Client(stage)
        play(client, steps)
        client.leave()
        client.look(1)
        assert client.reported == []
        assert (client.phase, client.line.closed, client.listener.budget.used) == (Phase.CLOSED, True, 0)
    Client(stage).send(HEAD % b"faulty-prepare" + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert (
        {one for one in changes(PHASES, STAGES) if not one.endswith(ENDS)} <= seen <= changes(PHASES, STAGES)
    )


def changes(*tables: Mapping[Any, Iterable[Any]]) -> set[str]:
    return {f"{old!r} {new!r}" for table in tables for old, after in table.items() for new in after}


@pytest.fixture
def uploader(stage: Scene) -> Client:
    """Its bodies may be large."""
    client = Client(stage)
    client.limit = MUCH
    return client


def test_a_body_of_many_small_chunks_takes_many_turns(uploader: Client) -> None:
    """However much of it comes at once: each turn of the loop takes a part, and no more is read until all are taken."""
    uploader.send(CHUNKED)
    uploader.line.send(SMALL_CHUNKS)
    turns = 1
    while uploader.line.stands_still:
        uploader.stage.loop.turn()
        turns += 1
    assert turns == -(-len(SMALL_CHUNKS) // connections.TURN_BYTES)
    uploader.send(LAST_CHUNK)
    uploader.answer()
    assert uploader.handlers[-1].request.size == 20_000
    assert uploader.line.out.startswith(b"HTTP/1.1 200 ")


def test_small_chunks_of_many_clients_have_one_turn_at_a_time(stage: Scene) -> None:
    """However many clients send them: behind the beginning of each, one turn of the loop takes one part of one."""
    clients = [Client(stage) for _ in range(5)]
    for client in clients:
        client.limit = MUCH
        client.connection._listener.turns = clients[
            0
        ].connection._listener.turns  # as all connections of a gateway do
        client.send(CHUNKED)
    for client in clients:
        client.line.send(SMALL_CHUNKS)
    parts = 0
    while any(client.line.stands_still for client in clients):
        stage.loop.turn()
        parts += 1
    each = -(-len(SMALL_CHUNKS) // connections.TURN_BYTES)
    assert parts == len(clients) * (each - 1)


@pytest.mark.parametrize("before", [b"", LATER], ids=["alone", "behind another"])
def test_what_comes_behind_many_small_chunks_has_its_turn(uploader: Client, before: bytes) -> None:
    """In the same read: the requests are answered one after another, and the connection goes on."""
    uploader.send(before + CHUNKED + SMALL_CHUNKS + LAST_CHUNK + GET)
    if before:
        uploader.answer()
    uploader.answer()
    uploader.send(GET)
    assert [handler.request.size for handler in uploader.handlers[-3:]] == [20_000, 0, 0]
    assert uploader.line.out.count(b"HTTP/1.1 200 ") == len(uploader.handlers)
    assert (uploader.phase, uploader.reported) == (Phase.IDLE, [])


def reset(client: Client) -> None:
    client.line.reset()


def be_late(client: Client) -> None:
    client.stage.loop.turn(after=1000)
    client.connection.check_deadlines(client.stage.loop.time())


def shut(client: Client) -> None:
    client.connection.end_at_shutdown()


@pytest.mark.parametrize("end", [reset, be_late, shut])
def test_the_end_between_two_turns(uploader: Client, end: Callable[[Client], None]) -> None:
    """A client that leaves, one that is late, and the gateway's own end: what is left of the chunks is let go."""
    uploader.send(CHUNKED)
    uploader.line.send(SMALL_CHUNKS)
    assert uploader.line.stands_still
    end(uploader)
    uploader.stage.loop.settle()
    assert not uploader.line.stands_still
    uploader.look(connections.LINGER_S + 1)
    assert (uploader.phase, uploader.listener.budget.used, uploader.reported) == (Phase.CLOSED, 0, [])


def test_a_refused_client_does_not_hold_up_the_end(uploader: Client) -> None:
    """Once the gateway ends, what it still sends is read for as long as a silence would be borne, and no longer."""
    uploader.send(HEAD % b"later" + b"Content-Length: %d\r\n\r\n" % (2 * MUCH))
    uploader.connection._listener.closing = True
    for _ in range(3):
        assert not uploader.line.closed
        uploader.send(b"x")
        uploader.look(connections.LINGER_S * 0.4)
    assert uploader.line.closed


def test_who_sends_all_before_it_looks_gets_its_refusal(uploader: Client) -> None:
    """What it still sends is read, at whatever speed within bounds, and a silence ends it."""
    length = b"Content-Length: %d\r\n\r\n" % (2 * MUCH)
    uploader.send(HEAD % b"later" + length)
    assert uploader.line.out.startswith(b"HTTP/1.1 413 ")
    for _ in range(10):
        uploader.send(b"x" * (MUCH // 5))
        uploader.look(connections.LINGER_S - 0.5)
    assert (uploader.line.closed, uploader.line.ended) == (False, True)
    uploader.look(connections.LINGER_S + 0.5)
    assert uploader.line.closed


@pytest.mark.parametrize(("bytes_a_second", "seconds"), [(100 * MUCH, 1), (1000, connections.MAX_LINGER_S)])
def test_who_never_stops_is_cut_off(uploader: Client, bytes_a_second: int, seconds: float) -> None:
    """After twice as many bytes as a body may have, or after a time."""
    uploader.send(HEAD % b"later" + b"Content-Length: %d\r\n\r\n" % (1 << 40))
    passed = 0
    while not uploader.line.closed:
        uploader.send(b"x" * bytes_a_second)
        uploader.look(1)
        passed += 1
    assert seconds <= passed <= seconds + 2


def test_a_body_that_stands_still_while_others_find_no_room(stage: Scene) -> None:
    """Is ended after a while; none is if nobody has been refused since, or if nothing of it is held."""
    client = Client(stage)
    client.send(SIZED + b"ab")
    client.look(1)
    client.look(connections.QUIET_S + 1)
    assert client.line.out == b""
    client.listener.budget.take(1 << 40, 0, 0)  # a big one, which is always taken
    assert not client.listener.budget.fits(1 << 40)
    client.send(b"c")
    for _ in range(2):
        client.look(connections.QUIET_S + 1)
    assert client.line.out == b""
    assert not client.listener.budget.fits(1 << 40)
    client.look(1)
    assert client.line.out.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("sent", [b"", b"ab"])
def test_a_body_that_stands_still_at_the_end(stage: Scene, sent: bytes) -> None:
    """Gets a bounded time from the moment on at which the gateway ends."""
    client = Client(stage)
    client.send(SIZED + sent)
    client.look(10)
    client.listener.close_idle()
    client.look(0.1)
    client.look(connections.DRAIN_WAIT_S / 2)
    assert client.line.out == b""
    client.look(connections.DRAIN_WAIT_S)
    assert client.line.out.startswith(b"HTTP/1.1 408 ")
    client.leave()
    assert client.listener.empty.is_set()


def test_a_body_that_goes_on_at_the_end(stage: Scene) -> None:
    """Is waited for."""
    client = Client(stage)
    client.send(SIZED)
    client.listener.close_idle()
    for byte in (b"a", b"b", b"c", b"d"):
        client.look(connections.DRAIN_WAIT_S)
        client.send(byte)
        client.look(0.1)
    client.answer()
    assert client.line.out.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("where", ["prepare", "start", "look"])
def test_a_fault_of_ours_before_the_answer(stage: Scene, where: str) -> None:
    """Is told as ours, with a status, and ends this request and its connection; it is reported once."""
    client = Client(stage)
    client.send(HEAD % (b"faulty-" + where.encode()) + b"\r\n")
    client.look(1)
    assert client.line.out.startswith(b"HTTP/1.1 500 ")
    assert b'"code":"gateway_error"' in client.line.out
    assert client.line.ended
    assert [str(fault) for fault in client.reported] == [where]


@pytest.mark.parametrize("where", ["begun", "pause", "resume"])
def test_a_fault_of_ours_in_the_answer(stage: Scene, where: str) -> None:
    """Breaks it off: it does not look finished."""
    client = Client(stage)
    client.stop_reading()
    client.send(HEAD % (b"faulty-" + where.encode()) + b"\r\n")
    client.line.read_on()
    stage.loop.settle()
    client.look(1)
    assert client.line.out.startswith(b"HTTP/1.1 200 ")
    assert not client.line.out.endswith(b"0\r\n\r\n")
    assert client.line.ended or client.line.closed
    assert [type(fault) for fault in client.reported] == [ZeroDivisionError]
    assert isinstance(client.told[-1], GatewayFault)


@pytest.mark.parametrize("where", ["fail", "gone", "shut"])
def test_a_fault_of_ours_at_the_end(stage: Scene, where: str) -> None:
    """Leaves nothing behind either."""
    client = Client(stage)
    client.send(HEAD % (b"faulty-" + where.encode()) + b"Content-Length: 4\r\n\r\nab")
    if where == "fail":
        client.send(b"\x00" * 9 + GET)
        client.look(1000)
    client.shut() if where == "shut" else client.leave()
    client.look(3)
    assert (client.phase, client.line.closed, client.listener.budget.used) == (Phase.CLOSED, True, 0)
    assert [str(fault) for fault in client.reported][:1] == ([where] if where != "fail" else [])
    assert client.connection not in client.listener.connections
