"""A worker's connection under test: a client asks through the whole gateway, and the worker sends what it likes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from gateway.server.connection import ClientConnection
from tests.referee import Attributed, answer_in
from tests.simulation import SLUG, Line, Stage

COMMENT = b": keep-alive\n\n"
LAST_EVENT = b"data: [DONE]"
ERROR_EVENT = re.compile(rb'(event: error\n)?data: \{"error":')
OWN_CODES = {
    "bad_worker_response",
    "gateway_error",
    "no_worker_available",
    "overloaded",
    "upstream_disconnected",
    "worker_timeout",
}
Good = tuple[bytes, bytes]  # status and body


class Asking:
    """A client that asks one request after another over one connection as far as that is kept."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.line = self._connect()

    def _connect(self) -> Line:
        return self.stage.connect(ClientConnection(self.stage.listener))

    def ask(self, *, stream: bool, http_1_0: bool = False) -> Exchange:
        """A chat request; the worker has it."""
        if self.line.closed or self.line.ended:
            self.line = self._connect()
        self.line.out = b""
        before = {id(line): len(line.out) for line in self.stage.loop.lines}
        body = json.dumps({"model": SLUG, "messages": [], "stream": stream}).encode()
        version = b"1.0" if http_1_0 else b"1.1"
        head = b"POST /v1/chat/completions HTTP/%b\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (
            version,
            len(body),
        )
        self.line.send(head + body)
        self.stage.loop.settle()
        asked = [line for line in self.stage.loop.lines if len(line.out) > before.get(id(line), 0)]
        assert len(asked) == 1, f"{len(asked)} workers have the request"
        return Exchange(self, asked[0])

    def end(self) -> None:
        """Within all deadlines everything is over: nothing is in flight, and no connection is paused."""
        self.stage.loop.settle()
        for _ in range(40):
            if self.stage.listener.connections:
                self.stage.look(100)
        self.stage.watch.judge()
        assert self.line.closed, "the client is left without an end"
        assert self.stage.worker.in_flight == 0
        assert self.stage.listener.budget.used == 0, "bytes of a body are held"
        assert not self.stage.listener.connections
        assert self.stage.log.faults == []
        for line in self.stage.loop.lines:
            assert not line.stands_still, "a worker's connection is paused for ever"
            line.leave()
        self.stage.loop.settle()
        assert all(line.closed for line in self.stage.loop.lines)
        self.stage.loop.lines.clear()


class Exchange:
    """One request at the worker. sent: what the worker has sent since it has it."""

    def __init__(self, asking: Asking, worker: Line) -> None:
        self._asking = asking
        self._loop = asking.stage.loop
        self._client = asking.line
        self._worker = worker
        self._lines = len(self._loop.lines)
        self._has_left = self._was_reset = False
        self.sent = b""

    @property
    def over(self) -> bool:
        """Whether the client has a whole answer, or none any more."""
        is_ended = self._client.closed or self._client.ended
        if is_ended or not self._client.out:
            return is_ended
        ours, _ = answer_in(self._client.out, b"POST", ended=False)
        return ours is not None and ours.whole

    def send(self, data: bytes) -> None:
        if self.over:  # out of turn: nobody may get it
            self._worker.send(data)
            self._loop.settle()
            assert self._worker.closed or not data, "a worker that speaks out of turn is trusted with more"
            return
        if self._has_left:
            return
        self.sent += data
        self._worker.send(data)
        self._loop.settle()

    def leave(self) -> None:
        if self._has_left:
            return
        self._has_left = True
        self._worker.leave()
        self._loop.settle()
        self._leave_others()

    def reset(self) -> None:
        if self._has_left:
            return
        self._has_left = self._was_reset = True
        self._worker.reset()
        self._loop.settle()
        self._leave_others()

    def _leave_others(self) -> None:
        """Where the gateway asks once more, it hears nothing."""
        for line in self._loop.lines[self._lines :]:
            line.leave()
        self._loop.settle()

    def judge(self) -> Good | None:
        """Compares what the client has with what the worker has sent; returns the worker's answer if it came whole.

        What is whole is the worker's, or an error of the gateway's own; what is not whole begins as the worker's.
        """
        self._asking.stage.watch.judge()
        assert self._asking.stage.log.faults == []
        if self._worker.stands_still and not self.over:
            assert not self._client.takes_more, "a worker is paused, whose client takes all"
        theirs, surplus = answer_in(self.sent, b"POST", ended=self._has_left and not self._was_reset)
        ours, _ = answer_in(self._client.out, b"POST", ended=self._client.is_over)
        if ours is None:
            return None
        body = ours.body.replace(COMMENT, b"")
        if (ours.whole and is_own(ours.start, body)) or (COMMENT in ours.body and tells_error(body)):
            return None
        theirs = theirs or Attributed((b"200",))  # a comment may come before a head
        assert ours.start == theirs.start or body == b"", f"{ours} made of {self.sent!r}"
        of_worker = theirs.body.replace(COMMENT, b"")
        if not ours.whole:
            assert begins_as(of_worker, body), f"{body!r} made of {self.sent!r}"
            return None
        assert theirs.whole or LAST_EVENT in of_worker, f"it looks whole: {self.sent!r}"
        assert body == of_worker, f"{body!r} made of {self.sent!r}"
        assert self._worker.closed or not surplus, "a worker that says too much is trusted with more"
        return ours.start[0], body


def is_own(start: tuple[bytes, ...], body: bytes) -> bool:
    """Whether this is an error that the gateway itself tells."""
    if int(start[0]) < 500:
        return False
    try:
        return json.loads(body)["error"]["code"] in OWN_CODES
    except (ValueError, KeyError, TypeError):
        return False


def begins_as(whole: bytes, part: bytes) -> bool:
    """Whether `part` is the beginning of `whole`, perhaps with an event behind it that tells of an error."""
    told = [match.start() for match in ERROR_EVENT.finditer(part)]
    before = part[: told[-1]] if told and not whole.startswith(part) else part
    return whole.startswith(before) and (
        before == part or not before or before.endswith((b"\n\n", b"\n\r\n"))
    )


def tells_error(body: bytes) -> bool:
    """Whether all that is left of a stream is an error, told as an event."""
    return body == b"" or ERROR_EVENT.match(body) is not None


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """`data` in pieces of these sizes, and the rest."""
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return [part for part in (*parts, data) if part]
