"""A worker's connection under test: a client asks through the whole gateway, and the worker sends what it likes."""

from __future__ import annotations

import json
from collections.abc import Iterable

from gateway.downstream import ClientConnection
from tests.referee import answer_in
from tests.simulation import SLUG, Line, Stage

COMMENT = b": keep-alive\n\n"
LAST_EVENT = b"data: [DONE]"
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
        return self.stage.connect(ClientConnection(self.stage.door))

    def ask(self, *, stream: bool, http_1_0: bool = False) -> Exchange:
        """A chat request; the worker has it."""
        if self.line.closed:
            self.line = self._connect()
        self.line.out = b""
        before = {id(line): len(line.out) for line in self.stage.loop.lines}
        body = json.dumps({"model": SLUG, "messages": [], "stream": stream}).encode()
        version = b"1.0" if http_1_0 else b"1.1"
        head = b"POST /v1/chat/completions HTTP/%b\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (
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
        for _ in range(40):
            if not self.line.closed:
                self.stage.look(100)
        assert self.line.closed, "the client is left without an end"
        assert self.stage.worker.in_flight == 0
        assert not self.stage.door.connections
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
        self._has_left = False
        self.sent = b""

    def send(self, data: bytes) -> None:
        self.sent += data
        self._worker.send(data)
        self._loop.settle()

    def leave(self) -> None:
        self._has_left = True
        self._worker.leave()
        self._loop.settle()
        self._leave_others()

    def reset(self) -> None:
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
        theirs, _ = answer_in(self.sent, b"POST", ended=self._has_left)
        is_ended = self._client.closed and not self._client.was_reset
        ours, _ = answer_in(self._client.out, b"POST", ended=is_ended)
        if ours is None:
            return None
        body = ours.body.replace(COMMENT, b"")
        if ours.whole and is_own(ours.start, body):
            return None
        assert theirs is not None, f"{ours} made of {self.sent!r}"
        assert ours.start == theirs.start, f"{ours.start} made of {self.sent!r}"
        of_worker = theirs.body.replace(COMMENT, b"")
        if not ours.whole:
            assert begins_as(of_worker, body), f"{body!r} made of {self.sent!r}"
            return None
        assert theirs.whole or LAST_EVENT in of_worker, f"it looks whole: {self.sent!r}"
        assert body == of_worker, f"{body!r} made of {self.sent!r}"
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
    same = next(
        (at for at, (a, b) in enumerate(zip(whole, part, strict=False)) if a != b), min(len(whole), len(part))
    )
    return same == len(part) or b'"error"' in part[same - 20 if same > 20 else 0 :]


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """`data` in pieces of these sizes, and the rest."""
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]
    return [part for part in (*parts, data) if part]
