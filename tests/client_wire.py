"""A client's connection under test: what is sent to it, who answers, and what must hold at any time."""

from __future__ import annotations

from dataclasses import replace

from gateway.api.errors import GatewayError, ModelNotFound, Overloaded
from gateway.server.connection import ClientConnection
from gateway.server.request import ClientRequest
from tests.referee import Attributed, requests_in, statuses
from tests.simulation import Stage

LIMIT = 4096  # bytes of a body
PIECE = b"x" * 3000
PATIENCE_S = 100.0  # of an answer that never comes


class Answer:
    """Answers one request as the first letter of its path says: now, later, stream, huge, broken, wait."""

    def __init__(self, client: Client, request: ClientRequest) -> None:
        self._client = client
        client.answers.append(self)
        self._loop = client.stage.loop
        self._request = request
        self._since: float | None = None
        self._paused = False
        self._left = 0  # pieces of a stream
        self._does = request.path[1:2]

    @property
    def is_paused(self) -> bool:
        return self._paused and not self._request.over

    def start(self) -> None:
        request = self._request
        version = b"1.0" if request.http_1_0 else b"1.1"
        self._client.started.append(((request.method, request.target, version), request.body()))
        self._since = self._loop.time()
        if self._does == b"l":
            self._loop.call_later(1, self._answer)
        elif self._does in b"sb":
            self._left = 5
            request.begin(200, [])
            self._loop.call_soon(self._stream)
        elif self._does != b"w":
            self._answer()

    def _answer(self) -> None:
        if not self._client.line.closed and not self._request.over:
            size = 200_000 if self._does == b"h" else 2
            self._request.begin(200, [(b"content-length", b"%d" % size)])
            self._request.write(b"o" * size)
            self._request.end()

    def _stream(self) -> None:
        if self._client.line.closed or self._paused or self._request.over:
            return
        self._left -= 1
        if self._left:
            self._request.write(PIECE)
            self._loop.call_soon(self._stream)
        elif self._does == b"b":
            self._request.break_off()
        else:
            self._request.end()

    def check_deadlines(self, now: float) -> None:
        if self._since is not None and now - self._since > PATIENCE_S:
            self.fail(Overloaded("It takes too long"))

    def fail(self, error: GatewayError) -> None:
        self._client.refused += 1
        if self._request.begun:
            self._request.break_off()
        else:
            self._request.refuse(error, [])

    def on_gone(self) -> None:
        self._client.gone += 1

    def end_at_shutdown(self) -> None:
        self.fail(Overloaded("The gateway is shutting down"))

    def pause(self) -> None:
        assert not self._paused
        self._paused = True

    def resume(self) -> None:
        assert self._paused
        self._paused = False
        self._loop.call_soon(self._stream) if self._left else None


class Client:
    """One client. prepared: the requests whose head was taken; started: those that were handed on whole, with their
    bodies; sent: all bytes that the gateway may have read."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.prepared: list[ClientRequest] = []
        self.started: list[tuple[tuple[bytes, bytes, bytes], bytes]] = []
        self.answers: list[Answer] = []
        self.refused = self.gone = 0
        self.sent = b""
        self.listener = replace(stage.listener, prepare=self._prepare)
        self.connection = ClientConnection(self.listener)
        self.line = stage.connect(self.connection)

    def _prepare(self, request: ClientRequest) -> None:
        self.prepared.append(request)
        request.limit = LIMIT
        request.handler = Answer(self, request)
        if request.path[1:2] == b"r":
            request.refusal = ModelNotFound("There is no such model")

    # what a client does

    def send(self, data: bytes) -> None:
        self.sent += data
        self.line.send(data)
        self.stage.loop.settle()
        self.check()

    def leave(self) -> None:
        self.line.leave()
        self.stage.loop.settle()
        self.check()

    def reset(self) -> None:
        self.line.reset()
        self.stage.loop.settle()
        self.check()

    def stop_reading(self) -> None:
        self.line.stop_reading()

    def read_on(self) -> None:
        self.line.read_on()
        self.stage.loop.settle()
        self.check()

    def close_door(self) -> None:
        """The gateway ends, and waits for what runs."""
        self.listener.close_idle()
        self.stage.loop.settle()
        self.check()

    def shut_door(self) -> None:
        """The gateway ends, and waits no longer."""
        self.listener.close_idle()
        self.listener.end_all()
        self.stage.loop.settle()
        self.check()

    def wait(self, seconds: float) -> None:
        """In steps, as the door looks at a connection several times a second."""
        for _ in range(4):
            self.stage.loop.pass_time(seconds / 4)
            for visitor in self.listener.connections:
                with self.stage.watch("look"):
                    visitor.check_deadlines(self.stage.loop.time())
            self.stage.loop.settle()
        self.check()

    def end(self) -> None:
        """Nothing comes any more: within all deadlines the connection must be over, and leave nothing behind."""
        for _ in range(12):
            if not self.line.closed:
                self.wait(PATIENCE_S)
        self.check()
        assert self.line.closed, "nobody closes the connection"
        assert self.connection not in self.listener.connections
        assert not self.connection.busy
        self._check_attribution(requests_in(self.sent))
        assert self.listener.budget.used == 0, "bytes of a body are held"
        kept = [request.target for request in self.prepared if request.handler is not None]
        assert not kept, f"still with a handler: {kept}"

    # what must hold

    def check(self) -> None:
        self.stage.watch.judge()
        assert self.stage.log.faults == []
        if self.line.closed:
            assert self.connection not in self.listener.connections
        elif self.line.takes_more:
            assert not any(answer.is_paused for answer in self.answers), "an answer is paused for ever"
        if self.line.stands_still:
            assert self.connection.busy, "nothing is read, and no answer is due"

    def _check_attribution(self, found: list[Attributed]) -> None:
        """Every request that was taken is one of the referee's, in its order; not so one whose length alone refuses it,
        as the referee reads twenty digits at most."""
        taken = [one for one in self.prepared if one.length <= LIMIT]
        heads = [(one.method, one.target, b"1.0" if one.http_1_0 else b"1.1") for one in taken]
        assert heads == [one.start for one in found[: len(heads)]], f"{heads} of {self.sent!r}"
        whole = [(one.start, one.body) for one in found if one.whole]
        others = iter(whole)
        assert all(one in others for one in self.started), f"{self.started} of {self.sent!r}"

    def outcome_soon(self) -> object:
        """The statuses of the answers in three seconds, whether the connection has ended, and what was handed on."""
        self.wait(3)
        return statuses(self.line.out, (one.method for one in self.prepared)), self.line.closed, self.started
