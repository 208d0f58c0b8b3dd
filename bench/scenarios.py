"""The loads of a benchmark: which servers take part, what they are asked, and what must come back. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from bench import answers
from bench.answers import LONG, REASONER, SHORT, SLOW, THOUGHTS, Stream
from bench.load import Plan
from bench.servers import BASE, Kind, Server

PROXIES = frozenset({Kind.GATEWAY, Kind.RUST, Kind.NGINX, Kind.PYTHON})
JSON, ONE, MANY, THOUSAND, REASONING, GROWTH = (
    "json", "stream-1", "streams-200", "streams-1000", "reasoning", "growth",
)  # fmt: skip
SIZES = {"body-1k": 1_000, "body-100k": 100_000, "body-10m": 10_000_000}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. `unit`: the work whose CPU time is told; `units`: how much of it one answer is.

    `servers`: the kinds and the keys of those that take part. ramp_s: over how long connections start, so that they
    stay evenly apart. seconds: of load that are measured, after the ramp.
    """

    key: str
    title: str
    unit: str
    units: int
    servers: frozenset[str]
    connections: int
    ask: Callable[[str], bytes]
    body: bytes
    ramp_s: float
    seconds: float = 2

    def takes(self, server: Server) -> bool:
        return server.kind in self.servers or server.key in self.servers

    def plan(self, server: Server) -> Plan:
        """The load for one server: LiteLLM writes answers anew, so that only their text can be compared."""
        same = has_text_of(self.body) if server.kind is Kind.PYTHON else self.expected(server).__eq__
        return Plan(self.connections, tuple(map(self.ask, self.models(server))), same)

    def models(self, server: Server) -> tuple[str, ...]:
        """The names to ask for, in turn: only our gateway knows by its card which model reasons."""
        return (REASONER,) if self.doubles_reasoning(server) else server.models

    def expected(self, server: Server) -> bytes:
        """What the worker sends; from Octet's gateway, reasoning comes under both its names."""
        return answers.with_both_names(self.body) if self.doubles_reasoning(server) else self.body

    def doubles_reasoning(self, server: Server) -> bool:
        return server.kind is Kind.GATEWAY and self.key == REASONING


def has_text_of(expected: bytes) -> Callable[[bytes], bool]:
    text = answers.text_of(expected)

    def same(body: bytes) -> bool:
        try:
            return answers.text_of(body) == text
        except (ValueError, KeyError, IndexError):
            return False

    return same


def all_scenarios() -> list[Scenario]:
    """In the order in which each round runs them."""
    return [
        whole(JSON, "JSON", PROXIES | {Kind.DIRECT}),
        streams(ONE, 1, SHORT, PROXIES),
        streams(MANY, 200, LONG, PROXIES | {Kind.DIRECT}),
        streams(THOUSAND, 1000, SLOW, PROXIES),
        streams(REASONING, 200, THOUGHTS, frozenset({Kind.GATEWAY, Kind.RUST})),
        whole(GROWTH, "JSON, more workers or models", frozenset({Kind.GROWN}), connections=128),
        *(sized(key, size) for key, size in SIZES.items()),
    ]


def whole(
    key: str,
    title: str,
    servers: frozenset[str],
    ask: Callable[[str], bytes] = answers.chat_request,
    connections: int = 32,
) -> Scenario:
    """Requests whose answers are JSON, sent as fast as they are answered."""
    title = f"{title}, {connections} connections"
    return Scenario(key, title, "request", 1, servers, connections, ask, answers.completion(), 0.2)


def sized(key: str, size: int) -> Scenario:
    """JSON with a request body of `size` bytes: text, or an image where text is never that long."""
    image = size > 1_000_000
    make = answers.image_request if image else answers.long_request
    title = f"JSON, {size // 1000:,} KB body" + (" with an image" if image else "")
    return whole(key, title, frozenset({BASE}), lambda model: make(model, size), 4 if image else 32)


def streams(key: str, open_at_once: int, stream: Stream, servers: frozenset[str]) -> Scenario:
    """Streams, each begun anew when it has ended."""
    kind = "stream" if open_at_once == 1 else "streams"
    title = f"{open_at_once:,} {kind}, {stream.chunks} chunks each, one every {stream.interval_ms} ms"
    if stream.field != "content":
        title += f", all {stream.field}"
    return Scenario(
        key, title, "chunk", stream.chunks, servers, open_at_once,
        lambda model: answers.stream_request(model, stream), answers.stream_body(stream),
        stream.seconds, max(2.0, stream.seconds * 0.75),
    )  # fmt: skip
