"""Whatever comes over a connection, from a client or a worker, in whatever pieces: nobody waits for ever, and no byte
is taken for what it is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.client_wire import Client
from tests.simulation import Slow, Stages
from tests.worker_wire import Asking, Exchange

LENGTH = settings(
    max_examples=60, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow], deadline=None
)
STAGES = Stages()
HEADS = (
    b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /huge HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /refused HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /broken HTTP/1.0\r\n\r\n",
    b"GET /now HTTP/1.0\r\nConnection: keep-alive\r\nHost: a:80\r\n\r\n",
    b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    b"POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    b"POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n",
    b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /refused HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /now HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, x\r\nUpgrade: h2c\r\n\r\n",
    b"POST /now HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /now HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX",
)
REST = (
    b"hello", b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b"1388\r\n",
    b"0\r\nx: y\r\nConnection: close\r\n\r\n", b"0\r\nx: ", b"ffffffffffffffff\r\n", b"-1\r\n", b"\n", b"\0", b": a",
    b"1\r\na\r\n", b"x: y\r\n", b"0\r\n", b"5\nhello\n0\n\n",
)  # fmt: skip
OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = (
    OK + b"content-type: application/json\r\ncontent-length: 14\r\n\r\n",
    OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    OK + b"content-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n",
    OK + b"connection: close\r\n\r\n",
    OK + b"content-type: text/event-stream\r\n\r\n",
    OK + b"content-length: 5\r\nconnection: close\r\n\r\n",
    OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
    OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    OK + b"content-length: 200000\r\n\r\n",
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\n",
    b"HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n",
    b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 204 None\r\n\r\n",
    b"HTTP/1.1 304 Same\r\ncontent-length: 5\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 200\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"no http\r\n\r\n",
)
PARTS = (
    b'{"object":"x"}', b"hello", b'10\r\ndata: {"a":12}\n\n\r\n', b"e\r\ndata: [DONE]\n\n\r\n", b"0\r\n\r\n",
    b"0\r\nx: y\r\n\r\n", b"5\r\nhello\r\n", b"\r\n", b"186a0\r\n", b"data: [DONE]\n\n", b"1\r\na\r\n",
    b"fffffffffffffffff\r\n", b"0\r\n", b"x: y\r\n", b"\0\n", b"zz\r\n",
)  # fmt: skip
WHOLE = (
    ANSWERS[0] + PARTS[0],
    ANSWERS[1] + PARTS[2] + PARTS[3] + PARTS[4],
    ANSWERS[2] + PARTS[6] + PARTS[5],
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\nhello",
)
CUT_OFF = (
    ANSWERS[0] + PARTS[0][:5],
    ANSWERS[1] + PARTS[2],
    ANSWERS[2] + PARTS[6],
    ANSWERS[2] + PARTS[6] + b"0\r\n",
    ANSWERS[2] + PARTS[6][:5],
    ANSWERS[8] + b"hello",
)
FLOODS = (ANSWERS[8], ANSWERS[2] + PARTS[8])
TIMES = (1, 7, 300, 10_000)


class Machine(RuleBasedStateMachine):
    """Steps of one play, kept: what was slow, on a machine that may be busy, is played once more to be sure."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = STAGES.take()
        self.steps: list[tuple[str, tuple[Any, ...]]] = []
        self.was_slow = False

    def do(self, step: str, *args: Any) -> None:
        self.steps.append((step, args))
        try:
            getattr(self, f"_{step}")(*args)
        except Slow:
            self.was_slow = True

    def teardown(self) -> None:
        self.do("end")
        steps, self.steps = self.steps, []
        if self.was_slow:
            self._begin()
            for step, args in steps:
                getattr(self, f"_{step}")(*args)
        STAGES.give_back(self.stage)

    def _begin(self) -> None:
        raise NotImplementedError


class ClientMachine(Machine):
    """A client does anything."""

    def __init__(self) -> None:
        super().__init__()
        self._begin()

    def _begin(self) -> None:
        self.only_sends = True
        self.client = Client(self.stage)

    @rule(data=st.sampled_from(HEADS))
    def sends_a_head(self, data: bytes) -> None:
        self.do("send", data)

    @rule(data=st.sampled_from(REST), times=st.sampled_from(TIMES))
    def sends_what_may_follow(self, data: bytes, times: int) -> None:
        self.do("send", data * times)

    @rule(data=st.sampled_from(HEADS + REST), at=st.integers(1, 60))
    def sends_in_two(self, data: bytes, at: int) -> None:
        self.do("send", data[:at])
        self.do("send", data[at:])

    @rule(data=st.sampled_from(HEADS + REST))
    def sends_byte_by_byte(self, data: bytes) -> None:
        for at in range(min(len(data), 150)):
            self.do("send", data[at : at + 1])
        self.do("send", data[150:])

    @rule(data=st.lists(st.sampled_from(HEADS), min_size=2, max_size=30))
    def sends_many(self, data: list[bytes]) -> None:
        self.do("send", b"".join(data))

    @rule(data=st.binary(max_size=40))
    def sends_garbage(self, data: bytes) -> None:
        self.do("send", data)

    @rule(seconds=st.sampled_from([0.1, 2.5, 12.0, 80.0]))
    def waits(self, seconds: float) -> None:
        self.do("other", "wait", seconds)

    @rule(what=st.sampled_from(["stop_reading", "read_on"]))
    def reads_or_not(self, what: str) -> None:
        self.do("other", what)

    @rule(data=st.sampled_from(HEADS[:6]))
    def takes_its_answer_late(self, data: bytes) -> None:
        self.do("other", "stop_reading")
        self.do("send", data)
        self.do("other", "read_on")

    @precondition(lambda self: self.client.line.closed or self.client.line.ended)
    @rule()
    def connects_again(self) -> None:
        self.do("end")
        self.do("begin")

    @precondition(lambda self: len(self.steps) > 4)
    @rule(what=st.sampled_from(["leave", "reset", "close_door", "shut_door"]))
    def ends(self, what: str) -> None:
        self.do("other", what)

    def _send(self, data: bytes) -> None:
        self.client.send(data)

    def _other(self, what: str, *args: float) -> None:
        self.only_sends = False
        getattr(self.client, what)(*args)

    def _end(self) -> None:
        if self.only_sends:
            in_pieces = self.client.outcome_soon()
            at_once = Client(self.stage)
            at_once.send(self.client.sent)
            assert in_pieces == at_once.outcome_soon(), f"it depends on the cut: {self.client.sent!r}"
            at_once.end()
        self.client.end()


class WorkerMachine(Machine):
    """A worker sends anything; its client reads or not, leaves or not."""

    def __init__(self) -> None:
        super().__init__()
        self._begin()

    def _begin(self) -> None:
        self.asking = Asking(self.stage)
        self.exchange: Exchange | None = None

    @property
    def is_busy(self) -> bool:
        return self.exchange is not None and not self.exchange.over

    @precondition(lambda self: self.exchange is not None and self.exchange.over)
    @rule(data=st.sampled_from(ANSWERS + PARTS))
    def speaks_out_of_turn(self, data: bytes) -> None:
        self.do("on", "send", data)

    @precondition(lambda self: not self.is_busy)
    @rule(stream=st.booleans(), http_1_0=st.booleans())
    def is_asked(self, stream: bool, http_1_0: bool) -> None:
        self.do("ask", stream, http_1_0)

    @precondition(lambda self: self.is_busy)
    @rule(data=st.sampled_from(ANSWERS))
    def sends_a_head(self, data: bytes) -> None:
        self.do("on", "send", data)

    @precondition(lambda self: self.is_busy)
    @rule(data=st.sampled_from(PARTS), times=st.sampled_from(TIMES))
    def sends_what_may_follow(self, data: bytes, times: int) -> None:
        self.do("on", "send", data * times)

    @precondition(lambda self: self.is_busy)
    @rule(head=st.sampled_from(ANSWERS), parts=st.lists(st.sampled_from(PARTS), max_size=4))
    def sends_an_answer(self, head: bytes, parts: list[bytes]) -> None:
        self.do("on", "send", head + b"".join(parts))

    @precondition(lambda self: self.is_busy)
    @rule(data=st.sampled_from(CUT_OFF), how=st.sampled_from(["leave", "reset"]))
    def is_cut_off(self, data: bytes, how: str) -> None:
        self.do("on", "send", data)
        self.do("on", how)

    @precondition(lambda self: self.is_busy)
    @rule(data=st.sampled_from(FLOODS), times=st.integers(1, 3))
    def floods_a_client_that_reads_later(self, data: bytes, times: int) -> None:
        self.do("client", "stop_reading")
        self.do("on", "send", data)
        for _ in range(times):
            self.do("on", "send", b"hello" * 5000)
        self.do("client", "read_on")

    @precondition(lambda self: self.is_busy)
    @rule(data=st.sampled_from(WHOLE), behind=st.sampled_from(ANSWERS[:3] + PARTS))
    def says_too_much(self, data: bytes, behind: bytes) -> None:
        self.do("on", "send", data + behind)

    @precondition(lambda self: self.is_busy)
    @rule(data=st.sampled_from(ANSWERS + PARTS))
    def sends_byte_by_byte(self, data: bytes) -> None:
        for at in range(len(data)):
            self.do("on", "send", data[at : at + 1])

    @precondition(lambda self: self.is_busy)
    @rule(data=st.binary(max_size=40))
    def sends_garbage(self, data: bytes) -> None:
        self.do("on", "send", data)

    @precondition(lambda self: self.is_busy)
    @rule(what=st.sampled_from(["leave", "reset"]))
    def ends(self, what: str) -> None:
        self.do("on", what)

    @rule(seconds=st.sampled_from([1.0, 16.0, 70.0]))
    def waits(self, seconds: float) -> None:
        self.do("look", seconds)

    @rule(what=st.sampled_from(["stop_reading", "read_on"]))
    def its_client_reads_or_not(self, what: str) -> None:
        self.do("client", what)

    @precondition(lambda self: len(self.steps) > 5)
    @rule(what=st.sampled_from(["leave", "reset"]))
    def its_client_ends(self, what: str) -> None:
        self.do("client", what)

    def _ask(self, stream: bool, http_1_0: bool) -> None:
        self.exchange = self.asking.ask(stream=stream, http_1_0=http_1_0)

    def _on(self, what: str, *args: bytes) -> None:
        if self.exchange is not None:
            getattr(self.exchange, what)(*args)
            self.exchange.judge()

    def _look(self, seconds: float) -> None:
        self.stage.look(seconds)
        self._judge()

    def _client(self, what: str) -> None:
        getattr(self.asking.line, what)()
        self.stage.loop.settle()
        self._judge()

    def _judge(self) -> None:
        if self.exchange is not None:
            self.exchange.judge()

    def _end(self) -> None:
        self.asking.line.read_on()
        self.asking.end()
        self._judge()


ClientMachine.TestCase.settings = WorkerMachine.TestCase.settings = LENGTH
TestClient = ClientMachine.TestCase
TestWorker = WorkerMachine.TestCase


@pytest.fixture(scope="module", autouse=True)
def stages() -> Iterator[None]:
    yield
    STAGES.close()
