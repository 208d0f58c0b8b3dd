"""h11 as the referee: the requests, and the answers, that a strict reader finds in the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import h11

MOST_HEAD_BYTES = 1 << 20  # more than any test sends: the referee judges the grammar, not our bounds

FINAL = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass
class Attributed:
    """One message as h11 reads it. `start`: method, target and version of a request, or the status of an answer."""

    start: tuple[bytes, ...]
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False


def requests_in(data: bytes) -> list[Attributed]:
    """The requests in `data`, each answered at once; the last may not be whole. Behind what is none there are no more.

    One empty line before a request is passed over, as RFC 9112 (2.2) asks of a server; h11 does not.
    """
    found: list[Attributed] = []
    while True:
        more, rest = _one_connection(data)
        found += more
        if not more or not more[-1].whole or not rest.startswith(b"\r\n"):
            if found or not data.startswith(b"\r\n") or data.startswith(b"\r\n\r\n"):
                return found
            rest = data
        data = rest[2:]


def _one_connection(data: bytes) -> tuple[list[Attributed], bytes]:
    """The requests up to an empty line between two, and what follows them; b"" behind the last of a connection."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES)
    server.receive_data(data)
    found: list[Attributed] = []
    rest = data
    try:
        while True:
            event = server.next_event()
            if isinstance(event, h11.Request):
                start = (event.method, event.target, event.http_version)
                found.append(Attributed(start, list(event.headers)))
            elif isinstance(event, h11.Data):
                found[-1].body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found[-1].whole = True
                rest = server.trailing_data[0]
                if not _goes_on(server):
                    return found, b""
                if rest.startswith(b"\r\n"):
                    return found, rest
            else:
                return found, b""
    except h11.RemoteProtocolError:
        return found, b""


def _goes_on(server: h11.Connection) -> bool:
    """Answers the request; whether another may follow on its connection."""
    server.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
    server.send(h11.EndOfMessage())
    if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
        return False
    server.start_next_cycle()
    return True


def answer_in(data: bytes, method: bytes, *, ended: bool) -> tuple[Attributed | None, bytes]:
    """The final answer at the beginning of `data`, None if it has no whole head, and what follows a whole answer.

    ended: the connection ends in order behind `data`.
    """
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD_BYTES)
    client.send(h11.Request(method=method, target="/", headers=[("host", "worker")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    if ended and data:
        client.receive_data(b"")
    found: Attributed | None = None
    try:
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                found = Attributed((b"%d" % event.status_code,), list(event.headers))
            elif isinstance(event, h11.Data) and found is not None:
                found.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and found is not None:
                found.whole = True
                return found, client.trailing_data[0]
            elif not isinstance(event, h11.InformationalResponse):
                return found, b""
    except h11.RemoteProtocolError:
        return found, b""


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
