"""A worker that costs next to nothing, so that a benchmark measures what stands in front of it.

A bare protocol on uvloop. It knows GET /health, /v1/models and /metrics; any POST is a chat request, whose `stream`
decides between one JSON completion at once and the stream that its `seed` names (answers.STREAMS). A request that asks
for usage gets the extra event.

`python -m bench.mock_worker [--ports 1]` prints the address of each port, one a line, and serves until SIGTERM. Each
port is a worker with one model of its own (answers.models).
"""

import argparse
import asyncio
import itertools
import signal
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import orjson
import uvloop

from bench import answers

HOST = "127.0.0.1"
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 20:00:00 GMT\r\nserver: mock\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Pieces:
    """A stream as the HTTP chunks that are sent at once, the last with its end."""

    chunks: tuple[bytes, ...]
    first_s: float
    interval_s: float


@dataclass(frozen=True, slots=True)
class Script:
    """Every answer of the mock worker, made once. Streams are by seed and by whether usage was asked for."""

    gets: dict[bytes, bytes]
    completion: bytes
    streams: dict[tuple[int, bool], Pieces]


def write_scripts(workers: int) -> list[Script]:
    """The scripts of that many workers, which differ in the names they serve."""
    whole, kinds = respond(200, answers.completion()), itertools.product(answers.STREAMS, (False, True))
    streams = {(stream.seed, usage): pieces_of(stream, usage) for stream, usage in kinds}
    return [Script(gets(number), whole, streams) for number in range(workers)]


def gets(number: int) -> dict[bytes, bytes]:
    """What a worker answers to GET, by path."""
    return {
        b"/health": respond(200, b""),
        b"/v1/models": respond(200, answers.models(number)),
        b"/metrics": respond(200, answers.worker_metrics(), "text/plain; version=0.0.4"),
    }


def pieces_of(stream: answers.Stream, usage: bool) -> Pieces:
    """A stream, made once. vLLM writes the last event, the usage and [DONE] as one HTTP chunk each, in one turn."""
    *others, last = map(http_chunk, answers.events(stream))
    end = http_chunk(answers.usage_event()) if usage else b""
    closing = last + end + http_chunk(answers.DONE) + http_chunk(b"")
    return Pieces((*others, closing), stream.first_ms / 1000, stream.interval_ms / 1000)


def respond(status: int, body: bytes, content_type: str = "application/json") -> bytes:
    head = (
        f"HTTP/1.1 {status} -\r\ndate: Fri, 20 Nov 2026 20:00:00 GMT\r\nserver: mock\r\n"
        f"content-length: {len(body)}\r\ncontent-type: {content_type}\r\n\r\n"
    )
    return head.encode() + body


NOT_FOUND = respond(404, b"{}")


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def body_length(head: bytes) -> int:
    """The Content-Length in a request's head, 0 without one."""
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


class MockWorker(asyncio.Protocol):
    """One connection: one request after another, each answered from the script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, which inherits nothing

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = bytes(self._received[:end])
        total = end + body_length(head)
        if len(self._received) >= total:
            body = bytes(self._received[end:total])
            del self._received[:total]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        method, path = head.split(b" ", 2)[:2]
        if method == b"POST":
            self._answer_chat(orjson.loads(body))
        else:
            self._write(self._script.gets.get(path, NOT_FOUND))

    def _answer_chat(self, asked: dict[str, Any]) -> None:
        if not asked.get("stream"):
            self._write(self._script.completion)
            return
        options = asked.get("stream_options")
        usage = isinstance(options, dict) and bool(options.get("include_usage"))
        pieces = self._script.streams[asked["seed"], usage]
        if pieces.first_s:
            self._write(SSE_HEAD)
            self._schedule(pieces, 0, self._loop.time() + pieces.first_s)
        else:
            self._write(SSE_HEAD + pieces.chunks[0])
            self._schedule(pieces, 1, self._loop.time())

    def _schedule(self, pieces: Pieces, number: int, started: float) -> None:
        """Sends piece `number` when it is due: times count from the first, so that a late piece delays no other."""
        if number < len(pieces.chunks):
            due = started + number * pieces.interval_s
            self._timer = self._loop.call_at(due, self._send_piece, pieces, number, started)

    def _send_piece(self, pieces: Pieces, number: int, started: float) -> None:
        self._write(pieces.chunks[number])
        self._schedule(pieces, number + 1, started)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(scripts: list[Script]) -> None:
    """Serves each on a free port until SIGTERM or SIGINT."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    makers = (partial(MockWorker, script) for script in scripts)
    servers = [await loop.create_server(make, HOST, 0, backlog=2048) for make in makers]
    for server in servers:
        print(f"listening {HOST}:{server.sockets[0].getsockname()[1]}")
    print("ready", flush=True)
    await stop.wait()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.mock_worker", description="A worker that costs nothing."
    )
    parser.add_argument(
        "--ports", type=int, default=1, help="ports to listen on, all on loopback (default 1)"
    )
    return parser.parse_args()


def main() -> None:
    given = parse_arguments()
    uvloop.run(serve(write_scripts(given.ports)))


if __name__ == "__main__":
    main()
