"""Every change that the tables of a call, an exchange and a worker's connection allow comes about, and no other."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum

import pytest

import gateway.proxy.handler
import gateway.upstream.connection
from gateway.api.errors import RateLimited
from gateway.config.api_keys import ApiKey, hash_key
from gateway.http.states import ANSWERS, STEPS, UPSTREAM_STATES, UpstreamState, changed
from gateway.limits.limiter import Reservation
from gateway.limits.shared import Then
from gateway.server.connection import ClientConnection
from tests.simulation import SLUG, Line, Stage

is_compiled = not (gateway.proxy.handler.__file__ or "").endswith(".py")
pytestmark = pytest.mark.skipif(
    is_compiled, reason="what compiled modules call cannot be watched from outside"
)

JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"8\r\ndata: 1\n\r\n"
BODY = json.dumps({"model": SLUG, "messages": [], "stream": True}).encode()
LONG = json.dumps({"model": SLUG, "messages": [{"role": "user"}] * 20_000, "stream": True}).encode()
KEYS = f"""
keys:
  free: {{sha256: [{hash_key(b"free")}]}}
  limited: {{sha256: [{hash_key(b"limited")}], limits: {{rpm: 100, tpm_out: 10000}}}}
"""
LIMITED = "authorization: Bearer limited"
Walk = Callable[["Site"], None]


class Others:
    """Other gateways that share limits with this one; the test says what they answer."""

    is_up = True

    def __init__(self) -> None:
        self._asked: list[tuple[Reservation, Then]] = []

    def confirm(self, _key: ApiKey, local: Reservation, then: Then) -> None:
        self._asked.append((local, then))

    def grant(self) -> None:
        local, then = self._asked.pop(0)
        then(local)

    def refuse(self) -> None:
        local, then = self._asked.pop(0)
        local.settle(None)
        then(RateLimited("too many"))


class Site:
    """A gateway whose worker takes one request at a time, with room for one more to wait."""

    def __init__(self) -> None:
        self.stage = Stage("{defaults: {in_flight_per_worker: 1, queue: {most: 1, wait_s: 5}}}", KEYS)
        self.others = Others()
        self.stage.gateway._admission._context.shared_limits = self.others

    def ask(self, body: bytes = BODY, *fields: str) -> Line:
        """A client that has sent a request, over a connection of its own."""
        line = self.stage.connect(ClientConnection(self.stage.listener))
        head = [
            "POST /v1/chat/completions HTTP/1.1",
            "host: localhost",
            f"content-length: {len(body)}",
            *(fields if LIMITED in fields else (*fields, "authorization: Bearer free")),
        ]
        line.send("\r\n".join([*head, "", ""]).encode() + body)
        return line

    def ask_zipped(self, body: bytes = BODY, *fields: str) -> Line:
        return self.ask(gzip.compress(body), "content-encoding: gzip", *fields)

    def settle(self) -> None:
        self.stage.loop.settle()

    @property
    def worker(self) -> Line:
        """The newest connection to the worker."""
        self.settle()
        return self.stage.loop.lines[-1]

    def occupy(self) -> Line:
        """The worker has its one request; returns the client."""
        client = self.ask()
        self.settle()
        return client

    def answer(self, data: bytes) -> None:
        self.worker.send(data)
        self.settle()


def walk_whole(site: Site) -> None:
    site.ask()
    site.answer(JSON)


def walk_in_pieces(site: Site) -> None:
    site.ask()
    for at in range(len(JSON)):
        site.answer(JSON[at : at + 1])


def walk_unknown_model(site: Site) -> None:
    site.ask(b'{"model":"nobodys"}')


def walk_zipped(site: Site) -> None:
    site.ask_zipped()
    site.answer(JSON)


def walk_long(site: Site) -> None:
    site.ask(LONG)
    site.answer(JSON)


def walk_long_and_wrong(site: Site) -> None:
    site.ask(LONG[:-1])
    site.settle()


def walk_long_and_queued(site: Site) -> None:
    site.occupy()
    site.ask(LONG)
    site.settle()
    site.answer(JSON)
    site.answer(JSON)


def walk_long_and_zipped(site: Site) -> None:
    site.ask_zipped(LONG)
    site.answer(JSON)


def walk_not_what_it_says(site: Site) -> None:
    site.ask(BODY, "content-encoding: gzip")
    site.settle()


def walk_queued(site: Site) -> None:
    site.occupy()
    site.ask()
    site.answer(JSON)
    site.answer(JSON)


def walk_zipped_and_queued(site: Site) -> None:
    site.occupy()
    site.ask_zipped()
    site.settle()
    site.answer(JSON)
    site.answer(JSON)


def walk_queued_too_long(site: Site) -> None:
    site.occupy()
    site.ask()
    site.stage.look(6)
    site.answer(JSON)


def walk_stale(site: Site) -> None:
    site.ask()
    site.answer(JSON)
    site.ask()
    site.worker.leave()
    site.answer(JSON)


def walk_worker_leaves(site: Site) -> None:
    site.ask()
    site.worker.leave()
    site.settle()


def walk_worker_leaves_in_its_head(site: Site) -> None:
    site.ask()
    site.answer(JSON[:20])
    site.worker.leave()
    site.settle()


def walk_worker_leaves_in_its_answer(site: Site) -> None:
    site.ask()
    site.answer(STREAM + EVENT)
    site.worker.leave()
    site.settle()


def walk_client_leaves(site: Site) -> None:
    client = site.occupy()
    client.leave()
    site.settle()


def walk_client_leaves_in_an_answer(site: Site) -> None:
    client = site.occupy()
    site.answer(STREAM + EVENT)
    client.leave()
    site.settle()


def walk_too_slow(site: Site) -> None:
    site.ask()
    site.answer(STREAM + EVENT)
    site.stage.look(61)


def walk_idle_and_left(site: Site) -> None:
    site.ask()
    site.answer(JSON)
    site.worker.leave()
    site.settle()


def walk_out_of_turn(site: Site) -> None:
    site.ask()
    site.answer(JSON)
    site.answer(JSON)


def walk_granted(site: Site) -> None:
    site.ask(BODY, LIMITED)
    site.settle()
    site.others.grant()
    site.answer(JSON)


def walk_refused(site: Site) -> None:
    site.ask(BODY, LIMITED)
    site.settle()
    site.others.refuse()
    site.settle()


def walk_long_and_granted(site: Site) -> None:
    site.ask(LONG, LIMITED)
    site.settle()
    site.others.grant()
    site.answer(JSON)


def walk_zipped_and_granted(site: Site) -> None:
    site.ask_zipped(BODY, LIMITED)
    site.settle()
    site.others.grant()
    site.answer(JSON)


def walk_granted_and_queued(site: Site) -> None:
    site.occupy()
    site.ask(BODY, LIMITED)
    site.settle()
    site.others.grant()
    site.answer(JSON)
    site.answer(JSON)


def walk_client_leaves_before_it_is_granted(site: Site) -> None:
    client = site.ask(BODY, LIMITED)
    site.settle()
    client.leave()
    site.settle()
    site.others.grant()


def walk_client_leaves_before_it_is_refused(site: Site) -> None:
    client = site.ask(BODY, LIMITED)
    site.settle()
    client.leave()
    site.settle()
    site.others.refuse()


@contextmanager
def site_of(walk: Walk) -> Iterator[Site]:
    site = Site()
    try:
        walk(site)
        yield site
    finally:
        site.stage.close()


WALKS = [walk for name, walk in list(globals().items()) if name.startswith("walk_")]
Changes = set[tuple[str, str, str]]  # of what, from and to: numbers of two enumerations may be equal


def change(old: IntEnum, new: IntEnum) -> tuple[str, str, str]:
    return type(new).__name__, old.name, new.name


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Changes:
    """The changes that come about."""
    found: Changes = set()

    def watched(table: dict[IntEnum, tuple[IntEnum, ...]], old: IntEnum, new: IntEnum) -> IntEnum:
        found.add(change(old, new))
        return changed(table, old, new)

    monkeypatch.setattr(gateway.proxy.handler, "changed", watched)
    monkeypatch.setattr(gateway.upstream.connection, "changed", watched)
    return found


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.__name__)
def test_a_walk_is_one_the_tables_allow(walk: Walk, seen: Changes) -> None:
    """Whatever happens is no fault of the gateway's own, and everything is given back in the end."""
    with site_of(walk) as site:
        for _ in range(4):
            site.stage.look(100)
        assert site.stage.log.faults == []
        assert site.stage.worker.in_flight == 0
        assert not site.stage.listener.connections


@pytest.mark.parametrize(
    "walk",
    [walk_refused, walk_client_leaves_before_it_is_granted, walk_client_leaves_before_it_is_refused],
    ids=lambda walk: walk.__name__,
)
def test_what_reached_no_worker_counts_for_nothing(walk: Walk) -> None:
    """Neither if other gateways refuse it nor if its client leaves before they have answered."""
    with site_of(walk) as site:
        assert {(one.limit, one.used) for one in site.stage.gateway.limiter.uses()} == {
            ("rpm", 0),
            ("tpm_out", 0),
        }


def test_every_change_comes_about(seen: Changes) -> None:
    """No table allows what never happens."""
    for walk in WALKS:
        with site_of(walk):
            pass
    allowed = {
        change(old, new)
        for table in (STEPS, ANSWERS, UPSTREAM_STATES)
        for old, after in table.items()  # type: ignore[attr-defined]
        for new in after
    }
    assert allowed - seen == {
        change(UpstreamState.NEW, UpstreamState.CLOSED)
    }  # a connection that was never made is never closed


def test_a_look_while_others_are_asked_begins_no_answer() -> None:
    """A comment would: then a refusal could not be a status any more."""
    site = Site()
    client = site.ask(BODY, LIMITED)
    site.settle()
    for connection in site.stage.listener.connections:
        connection.check_deadlines(site.stage.loop.time())
    site.settle()
    site.others.refuse()
    site.settle()
    assert client.out.startswith(b"HTTP/1.1 429 ")
