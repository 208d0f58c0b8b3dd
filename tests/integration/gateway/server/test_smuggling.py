"""What two readers could read differently reaches no worker, and ends in the same way however its bytes arrive."""

from __future__ import annotations

import asyncio
import difflib
import os
import random
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import h11

from tests.integration.gateway.harness import Gateway, Site
from tests.integration.gateway.server.smuggling import TOKEN, corpus
from tests.referee import Attributed, requests_in, statuses

OUTCOMES = Path(__file__).with_name("smuggling_outcomes.txt")
CANARY = b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n"
PATIENCE_S = 5  # of the gateway with half a request, which decides how long the test takes
MAX_S = 90
SENDERS = 64  # at a time, so that no request comes late
SHORT = 250  # bytes that are also sent one by one
CUTS = 2  # at random, beside those
OWN_FIELDS = (b"host", b"x-request-id", b"content-length")
Pieces = list[bytes]


class EchoWorker(asyncio.Protocol):
    """One connection to a worker. seen: every request that came to any of them, but probes; garbage: what was none."""

    def __init__(self, seen: list[Attributed], garbage: list[bytes]) -> None:
        self._seen = seen
        self._garbage = garbage
        self._reader = h11.Connection(h11.SERVER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.receive_data(data)
        try:
            while (event := self._reader.next_event()) is not h11.NEED_DATA:
                self._take(event)
        except h11.RemoteProtocolError:
            self._garbage.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reader.their_state is not h11.IDLE:
            self._garbage.append(repr(self._reader.their_state).encode())

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._seen.append(
                Attributed((event.method, event.target, event.http_version), list(event.headers))
            )
        elif isinstance(event, h11.Data):
            self._seen[-1].body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            self._answer(self._seen[-1])

    def _answer(self, asked: Attributed) -> None:
        probe = asked.start[0] == b"GET"
        if probe:
            self._seen.pop()
        body = b'{"data":[{"id":"alpha"}]}' if probe else b'{"object":"chat.completion"}'
        fields = [("content-length", str(len(body))), ("content-type", "application/json")]
        for event in (h11.Response(status_code=200, headers=fields), h11.Data(data=body), h11.EndOfMessage()):
            self._transport.write(self._reader.send(event) or b"")
        self._reader.start_next_cycle()


class Client(asyncio.Protocol):
    """Sends pieces, and takes what comes until the canary is answered or the connection ends."""

    def __init__(self, canary_answer: bytes) -> None:
        self._canary_answer = canary_answer
        self.received = b""
        self.is_open = True
        self.done = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(self._canary_answer):
            self.done.set()

    def eof_received(self) -> None:
        self.is_open = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self.done.set()


class Corpus:
    """Every payload in every cut, all at a gateway at once."""

    def __init__(self, gateway: Gateway) -> None:
        self._host, port = gateway.address.split(":")
        self._port = int(port)
        self._canary_answer = gateway.http.get("/v1/models").content
        self._senders = asyncio.Semaphore(SENDERS)
        self._random = random.Random(14)
        self.sent: dict[bytes, bytes] = {}  # by its token, what was sent

    async def outcomes(self) -> dict[str, set[str]]:
        """What came of each payload: one outcome, unless it depends on how it is cut."""
        found: dict[str, set[str]] = {name: set() for name in corpus()}
        async with asyncio.TaskGroup() as group:
            for name, payload in corpus().items():
                for pieces in self._cuts(payload):
                    group.create_task(self._try(found[name], pieces))
        return found

    def _cuts(self, payload: bytes) -> Iterator[Pieces]:
        """The payload and the canary, each time with a token of its own."""
        yield [self._marked(payload)]
        yield [self._marked(payload)[: -len(CANARY)], CANARY]
        if len(payload) <= SHORT:
            whole = self._marked(payload)
            yield [whole[at : at + 1] for at in range(len(whole))]
        for _ in range(CUTS):
            whole = self._marked(payload)
            at = [0, *sorted(self._random.sample(range(1, len(whole)), 4)), len(whole)]
            yield [whole[begin:end] for begin, end in pairwise(at)]

    def _marked(self, payload: bytes) -> bytes:
        token = b"%06d" % len(self.sent)
        self.sent[token] = payload.replace(TOKEN, token) + CANARY
        return self.sent[token]

    async def _try(self, found: set[str], pieces: Pieces) -> None:
        loop = asyncio.get_running_loop()
        async with self._senders:
            transport, client = await loop.create_connection(
                lambda: Client(self._canary_answer), self._host, self._port
            )
            for piece in pieces:
                if client.done.is_set():
                    break
                transport.write(piece)
                await asyncio.sleep(0.001 if len(piece) > 1 else 0)
        await client.done.wait()
        transport.abort()
        methods = [one.start[0] for one in requests_in(b"".join(pieces))]
        told = [str(status) for status in statuses(client.received, methods)]
        found.add(" ".join([*told, "open" if client.is_open else "closed"]))


@asynccontextmanager
async def served(site: Site) -> AsyncIterator[tuple[Gateway, list[Attributed], list[bytes]]]:
    """A gateway in front of an echo worker; what that has seen, and what was no request."""
    seen: list[Attributed] = []
    garbage: list[bytes] = []
    loop = asyncio.get_running_loop()
    worker = await loop.create_server(lambda: EchoWorker(seen, garbage), "127.0.0.1", 0)
    port = worker.sockets[0].getsockname()[1]
    site.workers.write_text(f"alpha http://127.0.0.1:{port}\n")
    gateway = await asyncio.to_thread(
        Gateway, site, GATEWAY_ALLOWED_HOSTS="*", GATEWAY_HEAD_TIMEOUT_S=PATIENCE_S, GATEWAY_BODY_TIMEOUT_S=PATIENCE_S,
        GATEWAY_KEEP_ALIVE_S=PATIENCE_S,
    )  # fmt: skip
    try:
        await asyncio.to_thread(gateway.wait_for, "alpha", "ready")
        yield gateway, seen, garbage
    finally:
        gateway.terminate()
        code, told = await asyncio.to_thread(gateway.end)
        worker.close()
    assert (code, told) == (0, "")
    assert gateway.events("fault") == []


async def test_nothing_is_smuggled_and_no_cut_changes_an_outcome(site: Site) -> None:
    """The worker sees no request, and no byte of one, that h11 does not find in the same bytes; the outcome of each
    payload is the same at every cut, and the one that is listed. OUTCOMES=write lists them anew."""
    async with served(site) as (gateway, seen, garbage):
        sending = await asyncio.to_thread(Corpus, gateway)
        async with asyncio.timeout(MAX_S):
            outcomes = await sending.outcomes()
    assert garbage == []
    assert [wrong for asked in seen for wrong in problems_of(asked, sending.sent)] == []
    listed = [f"{name} | {' or '.join(sorted(found))}\n" for name, found in outcomes.items()]
    assert [line for line in listed if " or " in line.rpartition("|")[2]] == []
    if os.environ.get("OUTCOMES") == "write":
        OUTCOMES.write_text("".join(listed))
    before = OUTCOMES.read_text().splitlines(keepends=True)
    assert "".join(difflib.unified_diff(before, listed, n=0)) == ""


def problems_of(asked: Attributed, sent: dict[bytes, bytes]) -> Iterator[str]:
    """A request at the worker must be one that h11 finds in what its client sent, with the same body and fields."""
    token = re.search(rb'"user":"(\d{6})"', asked.body)
    payload = sent[token[1]] if token is not None else b""
    found = [one for one in requests_in(payload) if one.whole and one.body == asked.body]
    if not found:
        yield f"{asked} is no request of {payload!r}"
    fields = {field for one in found for field in one.headers}
    for field in asked.headers:
        if found and field[0] not in OWN_FIELDS and field not in fields:
            yield f"{field} is no field of {payload!r}"


def test_there_are_hundreds_of_payloads() -> None:
    """Each one different."""
    payloads = list(corpus().values())
    assert len(payloads) >= 200
    assert len(set(payloads)) == len(payloads)
