"""What fifty streams notice of one client that sends the worst bodies within the size limits.

usage: python -m bench.hostile [--seconds 4] [--only NAME] [--json FILE]
A worker stamps each chunk when it sends it, every 20 ms in fifty streams; lag is how much later a client has it, of the
same clock. Beside them one client sends one body after another; a last one asks /health all the while, which tells how
long the gateway's event loop takes. An idle round comes before, between and behind the bodies.
The bar: no chunk is later than 50 ms. It is inconclusive where an idle round misses it too: then the host is at work.
What such a host cannot blur is told beside it: the CPU time of the longest turn in which a body is read.
The gateway has a core; worker, streams and the hostile client share the other.
Exit codes: 0 every bar holds, or the host is too busy to say · 1 one is missed · 3 a server broke.
"""

import argparse
import asyncio
import gzip
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvloop
import zstandard

from bench.answers import MODEL
from bench.figures import quantile, table
from bench.processes import end, layout, pinned, program, python_module
from bench.servers import MAIN_FLEET, BrokenServer, Server, gateway_started, wait_for
from gateway.api.errors import InvalidRequest
from gateway.api.routes import Routes
from gateway.body.reader import BodyReader
from gateway.config.field_policy import FieldPolicy

STREAMS, INTERVAL_S, SECONDS, MOST_MS = 50, 0.02, 4.0, 50.0
MIB = 1 << 20
MAX = 10 * MIB - 200  # bytes of a JSON body without media, and a little for what is around
PATIENT = 10  # niceness of the hostile client, which shares a core with those who measure
IDLE = "idle"
CHAT = "/v1/chat/completions"


def list_of(part: bytes, count: int | None = None) -> bytes:
    """A member that nobody reads, as large as it may be."""
    return b'{"model":"%b","metadata":[%b0]}' % (MODEL.encode(), part * (count or MAX // len(part)))


def in_messages(part: bytes, count: int | None = None) -> bytes:
    """A message whose parts are looked at for media."""
    head = b'{"model":"%b","metadata":{"image_url":0},"messages":[{"content":[' % MODEL.encode()
    return head + part * (count or MAX // len(part)) + b"0]}]}"


def numbers() -> bytes:
    """A million and a half that do not compress well."""
    found = array("H", random.Random(0).randbytes(3_000_000))
    return list_of(b"".join([b"%d," % number for number in found]), 1)


def form() -> bytes:
    return b"--B" * (50 * MIB // 3 - 1)


BODIES: Mapping[str, Callable[[], bytes]] = {
    "3.9 million integers": lambda: list_of(b"0,", 3_900_000),
    "floats with exponents": lambda: list_of(b"-1.25e-7,"),
    "short strings": lambda: list_of(b'"ab",'),
    "strings of escapes": lambda: list_of(b'"\\u4f60\\n\\"",'),
    "one string of backslashes": lambda: list_of(b'"%b",' % (b"\\\\" * (MAX // 2 - 10)), 1),
    "one string of Chinese": lambda: list_of('"{}",'.format("你" * (MAX // 3 - 10)).encode(), 1),
    "different names": lambda: list_of(b'{%b"z":0},' % b"".join(b'"%x":0,' % at for at in range(900_000)), 1),
    "249,000 objects": lambda: list_of(b'{"a":0},', 249_000),
    "900,000 objects, refused": lambda: list_of(b'{"a":0},', 900_000),
    "60 levels deep": lambda: list_of(b"[" * 60 + b"]" * 60 + b",", 4000),
    "blanks": lambda: list_of(b" " * (MAX - 10), 1),
    "media of no address": lambda: in_messages(b'{"image_url":{"url":"data:"}},', 120_000),
    "names with escapes": lambda: in_messages(b'{%b"z":0},' % (b'"im\\u0061ge_url":0,' * (MAX // 20)), 1),
    "a 50 MiB image": lambda: in_messages(
        b'{"image_url":{"url":"data:image/png;base64,%b"}},' % (b"A" * (49 * MIB)), 1
    ),
    "gzip of integers": lambda: gzip.compress(numbers(), 1),
    "zstd of integers": lambda: zstandard.compress(numbers()),
    "a gzip bomb, refused": lambda: gzip.compress(b"0" * (2000 * MIB), 1),
    "a form of boundaries, refused": form,
}


def fields_of(name: str) -> str:
    """The head's fields that are special to a body."""
    if "form" in name:
        return "content-type: multipart/form-data; boundary=B\r\n"
    coding = next((f"content-encoding: {one}\r\n" for one in ("gzip", "zstd") if one in name), "")
    return f"content-type: application/json\r\n{coding}"


# the worker: a stamped stream for who asks for one, else a short answer


async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line[15:])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ),
                0,
            )
            body = await reader.readexactly(length)
            if b'"stream":true' in body[:200]:
                await stream(writer)
            else:
                served = {"object": "list", "data": [{"id": model} for model in MAIN_FLEET.models]}
                told = json.dumps(served if b"/v1/models" in head else {}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                writer.write(b"content-length: %d\r\n\r\n%b" % (len(told), told))
    writer.close()


async def stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await asyncio.sleep(INTERVAL_S)
        event = b"data: %d\n\n" % time.monotonic_ns()
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await writer.drain()


async def serve_worker() -> None:
    server = await asyncio.start_server(work, "127.0.0.1", 0, limit=64 * MIB)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# the hostile client


def attack(port: int, name: str) -> None:
    """Sends the body again and again; says how often it was answered when its standard input ends."""
    body = BODIES[name]()
    path = "/v1/audio/transcriptions" if "form" in name else CHAT
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields_of(name)}"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    print(len(body), flush=True)
    while True:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            with suppress(ConnectionError):
                connection.sendall(request)
            with suppress(ConnectionError):
                print(connection.recv(100).partition(b"\r\n")[0].decode(), flush=True)
                while connection.recv(65536):
                    pass


@contextmanager
def attacked(port: int, name: str, told: list[str]) -> Iterator[None]:
    """The hostile client at work; `told` gets what it was told. Raises BrokenServer."""
    if name == IDLE:
        yield
        return
    words = python_module("bench.hostile", "--attack", str(port), name)
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    os.setpriority(os.PRIO_PROCESS, process.pid, PATIENT)
    assert process.stdout is not None
    try:
        told += [process.stdout.readline().decode().strip() for _ in range(2)]  # an answer has come
        yield
    finally:
        end(process)
        told += process.stdout.read().decode().splitlines()
    if not told[1].startswith("HTTP/1.1 "):
        raise BrokenServer(f"the gateway did not answer to {name}")


# those who measure


async def read_stream(port: int, until: float, lags: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"model":"%b","stream":true,"messages":[]}' % MODEL.encode()
    writer.write(
        b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"
        % (CHAT.encode(), len(body), body)
    )
    while time.monotonic() < until:
        line = await reader.readline()
        if not line:
            raise BrokenServer("a stream has ended")
        if line.startswith(b"data: "):
            lags.append((time.monotonic_ns() - int(line[6:])) / 1e6)
    writer.close()


async def ask_health(port: int, until: float, lags: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < until:
        parsed = time.monotonic()
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        await reader.readexactly(length)
        lags.append((time.monotonic() - parsed) * 1e3)
        await asyncio.sleep(0.005)
    writer.close()


@dataclass(frozen=True, slots=True)
class Round:
    """One body: its size, how often it was answered and how; lags in ms of chunks, and of /health; the CPU time of the
    longest turn of its reading, in ms."""

    name: str
    size: int
    answers: int
    status: str
    chunks: list[float]
    health: list[float]
    turn: float

    def row(self) -> list[str]:
        lags = [quantile(self.chunks, share) for share in (0.5, 0.99, 1)]
        lags += [quantile(self.health, share) for share in (0.99, 1)]
        size = f"{self.size / 1e6:.2f}" if self.size else ""
        return [
            self.name,
            size,
            self.status,
            str(self.answers or ""),
            *(f"{lag:.1f}" for lag in [*lags, self.turn]),
        ]


async def watch(port: int, seconds: float) -> tuple[list[float], list[float]]:
    until, chunks, health = time.monotonic() + seconds, list[float](), list[float]()
    async with asyncio.TaskGroup() as group:
        for _ in range(STREAMS):
            group.create_task(read_stream(port, until, chunks))
        group.create_task(ask_health(port, until, health))
    return chunks, health


def longest_turn(name: str) -> float:
    """What the event loop is held for at a time while a body is read, in ms of CPU."""
    if name == IDLE or name.startswith(("gzip", "zstd", "a gzip")):
        return 0.0  # of its own, in a thread; then what is in it is read as any other
    path = b"/v1/audio/transcriptions" if "form" in name else CHAT.encode()
    route = Routes().find(path)
    assert route is not None
    kind = b"multipart/form-data; boundary=B" if "form" in name else b"application/json"
    reader = BodyReader({}, 10 * MIB, FieldPolicy())
    reading, longest, over = reader.begin(BODIES[name](), kind, route), 0.0, False
    while not over:
        began = time.thread_time()
        try:
            over = reading.advance()
        except InvalidRequest:
            over = True
        longest = max(longest, time.thread_time() - began)
    return longest * 1e3


def measure(server: Server, name: str, seconds: float) -> Round:
    told: list[str] = []
    with attacked(server.port, name, told):
        chunks, health = uvloop.run(watch(server.port, seconds))
    status = told[1].split()[1] if told else ""
    return Round(
        name, int(told[0]) if told else 0, max(len(told) - 1, 0), status, chunks, health, longest_turn(name)
    )


def run(names: list[str], seconds: float) -> Iterator[Round]:
    """Idle rounds before, between and behind."""
    cores = layout(sorted(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="octet-hostile-") as folder:
        log = Path(folder) / "worker.log"
        words = python_module("bench.hostile", "--worker")
        with program(words, {cores.mock}, log, os.environ) as worker:
            port = wait_for(worker, log, lambda text: int(text) if text.endswith("\n") else None)
            ports = [port] * len(MAIN_FLEET.models)
            with (
                gateway_started(Path(folder), cores.servers, MAIN_FLEET, ports) as server,
                pinned({cores.load}),
            ):
                for at, name in enumerate(names):
                    if at % 5 == 0:
                        yield measure(server, IDLE, seconds)
                    yield measure(server, name, seconds)
                yield measure(server, IDLE, seconds)


def judge(one: Round, idle_ms: float) -> str:
    """Of the latest chunk; idle_ms: the latest of all idle rounds, in which nobody is hostile."""
    if max(one.chunks) <= MOST_MS:
        return "holds"
    return "missed" if idle_ms <= MOST_MS else "inconclusive"


def report(rounds: list[Round]) -> bool:
    """Prints what was found; returns whether a bar is missed."""
    idle_ms = max(max(one.chunks) for one in rounds if one.name == IDLE)
    states = ["" if one.name == IDLE else judge(one, idle_ms) for one in rounds]
    header = ["body", "MB sent", "status", "answers", "p50", "p99", "max"]
    header += ["/health p99", "max", "turn", f"max <= {MOST_MS:g}"]
    print(
        "lag in ms, of the chunks of fifty streams, and of /health; turn: the longest of reading, in ms of CPU"
    )
    print(table(header, [[*one.row(), state] for one, state in zip(rounds, states, strict=True)]))
    return "missed" in states


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--only", choices=BODIES, action="append")
    parser.add_argument("--json", type=Path, default=Path("out/hostile.json"))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--attack", nargs=2, metavar=("PORT", "NAME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        uvloop.run(serve_worker())
    elif given.attack:
        attack(int(given.attack[0]), given.attack[1])
    try:
        rounds = list(run(given.only or list(BODIES), given.seconds))
    except (BrokenServer, ExceptionGroup) as error:
        print(f"hostile: {error!r}", file=sys.stderr)
        return 3
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps([one.row() for one in rounds]) + "\n")
    return int(report(rounds))


if __name__ == "__main__":
    sys.exit(main())
