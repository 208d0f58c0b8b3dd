"""A client's connection under test: what is sent to it, who answers, and what must hold at any time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from gateway.downstream import ClientConnection
from gateway.errors import GatewayError, ModelNotFound, Overloaded
from gateway.request import ClientRequest
from tests.referee import Attributed, requests_in
from tests.simulation import Stage

LIMIT = 4096  # bytes of a body
PIECE = b"x" * 1000
PATIENCE_S = 100.0  # of an answer that never comes
FINAL = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answer:
    """Answers one request as the first letter of its path says: now, later, stream, huge, broken, wait."""

    def __init__(self, client: Client, request: ClientRequest) -> None:
        self._client = client
        self._loop = client.stage.loop
        self._request = request
        self._since: float | None = None
        self._paused = False
        self._left = 0  # pieces of a stream
        self._does = request.path[1:2]

    def start(self) -> None:
        request = self._request
        version = b"1.0" if request.http_1_0 else b"1.1"
        self._client.started.append(((request.method, request.target, version), request.body()))
        self._since = self._loop.time()
        if self._does == b"l":
            self._loop.call_later(1, self._answer)
        elif self._does in b"sb":
            self._left = 3
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

    def look(self, now: float) -> None:
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

    def shut(self) -> None:
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
        self.refused = self.gone = 0
        self.sent = b""
        self.door = replace(stage.door, prepare=self._prepare)
        self.connection = ClientConnection(self.door)
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

    def wait(self, seconds: float) -> None:
        """In steps, as the door looks at a connection several times a second."""
        for _ in range(4):
            self.stage.loop.pass_time(seconds / 4)
            for visitor in self.door.connections:
                with self.stage.watch("look"):
                    visitor.look(self.stage.loop.time())
            self.stage.loop.settle()
        self.check()

    def end(self) -> None:
        """Nothing comes any more: within all deadlines the connection must be over, and leave nothing behind."""
        for _ in range(12):
            if not self.line.closed:
                self.wait(PATIENCE_S)
        self.check()
        assert self.line.closed, "nobody closes the connection"
        assert self.connection not in self.door.connections
        assert not self.connection.busy
        kept = [request.target for request in self.prepared if request.handler is not None]
        assert not kept, f"still with a handler: {kept}"

    # what must hold

    def check(self) -> None:
        assert self.stage.log.faults == []
        self._check_attribution(requests_in(self.sent))
        if self.line.closed:
            assert self.connection not in self.door.connections
        if self.line.stands_still:
            assert self.connection.busy, "nothing is read, and no answer is due"

    def _check_attribution(self, found: list[Attributed]) -> None:
        """Every request that was taken is one of the referee's, in its order."""
        heads = [(one.method, one.target, b"1.0" if one.http_1_0 else b"1.1") for one in self.prepared]
        assert heads == [one.start for one in found[: len(heads)]], f"{heads} of {self.sent!r}"
        whole = [(one.start, one.body) for one in found if one.whole]
        others = iter(whole)
        assert all(one in others for one in self.started), f"{self.started} of {self.sent!r}"

    @property
    def outcome(self) -> tuple[tuple[int, ...], bool]:
        """The statuses of the answers so far, and whether the connection has ended."""
        return tuple(statuses(self.line.out, (one.method for one in self.prepared))), self.line.closed


def statuses(out: bytes, methods: Iterable[bytes]) -> list[int]:
    """The final answers in `out`, each with its framing checked; -1 for one that was broken off."""
    found: list[int] = []
    asked = iter(methods)
    while out:
        if out.startswith(INTERIM):
            out = out.removeprefix(INTERIM)
            continue
        match = FINAL.match(out)
        assert match is not None, f"no answer: {out[:200]!r}"
        rest = _behind_body(out[match.end() :], match[2], next(asked, b""))
        found += [int(match[1])] if rest is not None else [int(match[1]), -1]
        out = rest or b""
    return found


def _behind_body(data: bytes, fields: bytes, method: bytes) -> bytes | None:
    """What follows an answer's body; None if that is not whole."""
    if method == b"HEAD":
        return data
    if length := re.search(rb"(?i)^content-length: (\d+)\r\n", fields, re.MULTILINE):
        size = int(length[1])
        return data[size:] if len(data) >= size else None
    if b"transfer-encoding: chunked" not in fields:
        return b""
    while frame := re.match(rb"([0-9a-f]+)\r\n", data):
        size = int(frame[1], 16)
        if len(data) < frame.end() + size + 2:
            return None
        data = data[frame.end() + size + 2 :]
        if not size:
            return data
    assert data == b"" or b"\r\n" not in data, f"no chunk: {data[:100]!r}"
    return None
