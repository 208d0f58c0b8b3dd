"""A worker that costs next to nothing, so that a benchmark measures what stands in front of it.

A bare protocol on uvloop. It knows GET /health and /v1/models; any POST is a chat request, whose `stream` decides
between one JSON completion at once and a stream of server-sent events, one every interval.

`python -m bench.mock_worker --names NAME... [--chunks 100] [--interval-ms 20] [--port 0]` prints the address it
listens on and serves until SIGTERM.
"""

import argparse
import asyncio
import signal
from dataclasses import dataclass
from typing import cast

import orjson
import uvloop

from bench import answers

HOST = "127.0.0.1"
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 20:00:00 GMT\r\nserver: mock\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Script:
    """Every answer of the mock worker, made once. `pieces` are a stream's HTTP chunks, the last with its end."""

    health: bytes
    models: bytes
    completion: bytes
    pieces: tuple[bytes, ...]
    interval_s: float


def write_script(names: list[str], chunks: int, interval_s: float) -> Script:
    """The script of a worker that serves `names`; completions carry the first of them."""
    *others, last = answers.events(names[0], chunks)
    pieces = [*map(http_chunk, others), http_chunk(last + answers.DONE) + http_chunk(b"")]
    return Script(
        json_response(b"{}"),
        json_response(answers.models(names)),
        json_response(answers.completion(names[0])),
        tuple(pieces),
        interval_s,
    )


def json_response(body: bytes) -> bytes:
    head = (
        "HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 20:00:00 GMT\r\nserver: mock\r\n"
        f"content-length: {len(body)}\r\ncontent-type: application/json\r\n\r\n"
    )
    return head.encode() + body


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
        if head.startswith(b"POST "):
            if orjson.loads(body).get("stream"):
                self._begin_stream()
            else:
                self._write(self._script.completion)
        else:
            self._write(self._script.health if head.startswith(b"GET /health ") else self._script.models)

    def _begin_stream(self) -> None:
        self._write(SSE_HEAD + self._script.pieces[0])
        self._schedule(1, self._loop.time())

    def _schedule(self, number: int, started: float) -> None:
        """Sends piece `number` when it is due: times count from the start, so that a late piece delays no other."""
        if number < len(self._script.pieces):
            due = started + number * self._script.interval_s
            self._timer = self._loop.call_at(due, self._send_piece, number, started)

    def _send_piece(self, number: int, started: float) -> None:
        self._write(self._script.pieces[number])
        self._schedule(number + 1, started)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(script: Script, port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: MockWorker(script), HOST, port, backlog=2048)
    print(f"listening {HOST}:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.mock_worker", description="A worker that costs nothing."
    )
    parser.add_argument("--names", nargs="+", required=True, help="served model names")
    parser.add_argument("--chunks", type=int, default=100, help="chunks of a stream (default 100)")
    parser.add_argument(
        "--interval-ms", type=float, default=20, help="milliseconds between them (default 20)"
    )
    parser.add_argument("--port", type=int, default=0, help="port on loopback (default: any free one)")
    return parser.parse_args()


def main() -> None:
    given = parse_arguments()
    uvloop.run(serve(write_script(given.names, given.chunks, given.interval_ms / 1000), given.port))


if __name__ == "__main__":
    main()
