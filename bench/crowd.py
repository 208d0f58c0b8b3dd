"""Fifty clients that read at once, alone and beside a thousand that read a kilobyte a second: what they notice.

usage: python -m bench.crowd [--rounds 5] [--json FILE]
Time to first byte of fifty streams, p99, in turns; the bar is the ratio of the medians where the worker's first token
takes 17 ms, which no model here is faster than. Streams whose first token comes at once are told too: what they wait is
the gateway's alone. The gateway has a core. The crowd and a worker of its own get what the fifty and theirs leave of
the other.
Exit codes: 0 the bar holds · 1 it is missed · 2 too few cores or files · 3 an answer was wrong, or a server broke.
"""

import argparse
import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import uvloop

from bench.answers import LONG, MODEL, PROMPTED, Stream, numbered, stream_request
from bench.bars import Verdict, compared
from bench.figures import Figure
from bench.load import WrongAnswer
from bench.measure import run_load, to_sample
from bench.processes import end, layout, pinned, python_module
from bench.scenarios import PROXIES, streams
from bench.servers import MAIN_FLEET, BrokenServer, Server, gateway_started, mock_started

FAST, SLOW = 50, 1000
CROWDS = numbered(1)  # the crowd's model
FLEET = replace(MAIN_FLEET, models=(MODEL, CROWDS))
PATIENT = 19  # niceness
TOLD = f"first token after {PROMPTED.first_ms} ms"
FASTS = {TOLD: PROMPTED, "first token at once": LONG}
WAYS = [f"{name}, {way}" for name in FASTS for way in ("alone", "crowded")]
SECONDS, ROUNDS = 6.0, 5
KIB = 1024
MOST_RATIO = 1.2
READY = "all read"
GATHER_S = 60


async def read_slowly(port: int, begun: asyncio.Semaphore) -> None:
    """Asks for one stream after another and takes a kilobyte a second of it, for ever."""
    loop, body = asyncio.get_running_loop(), stream_request(CROWDS, LONG)
    fields = f"host: localhost\r\nconnection: close\r\ncontent-length: {len(body)}"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{fields}\r\n\r\n"
    reads = False
    while True:
        with narrow() as connection:
            await loop.sock_connect(connection, ("127.0.0.1", port))
            await loop.sock_sendall(connection, head.encode() + body)
            while await loop.sock_recv(connection, KIB):
                if not reads:
                    begun.release()
                reads = True
                await asyncio.sleep(1)


def narrow() -> socket.socket:
    """A socket whose receiver takes a few kilobytes at a time. Its segments are Ethernet's: loopback's own, of 64 KiB,
    do not fit its window and come when a timer probes it."""
    connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    connection.setblocking(False)
    return connection


async def crowd(port: int) -> None:
    """All slow readers; says so once each has read something."""
    begun = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        for _ in range(SLOW):
            group.create_task(read_slowly(port, begun))
        for _ in range(SLOW):
            await begun.acquire()
        print(READY, flush=True)


@contextmanager
def crowded(port: int) -> Iterator[None]:
    """The crowd in a process of its own, ended with the block. Raises BrokenServer unless it is there all the while."""
    process = subprocess.Popen(
        python_module("bench.crowd", "--readers-of", str(port)), stdout=subprocess.PIPE
    )
    os.setpriority(os.PRIO_PROCESS, process.pid, PATIENT)
    overdue = threading.Timer(GATHER_S, process.kill)
    try:
        assert process.stdout is not None
        overdue.start()
        if process.stdout.readline().strip() != READY.encode():
            raise BrokenServer("the slow readers ended before all of them read")
        overdue.cancel()
        yield
        if process.poll() is not None:
            raise BrokenServer("a slow reader was cut off, and the others ended with it")
    finally:
        overdue.cancel()
        end(process)


def first_byte_p99_ms(server: Server, stream: Stream) -> float:
    scenario = replace(streams("fifty", FAST, stream, PROXIES), seconds=SECONDS)
    tally = uvloop.run(run_load(server, scenario))
    return to_sample(tally, scenario.units, 0).ttfb_p99_ms


def measure(server: Server, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round, alone and crowded, by what is asked for. Raises WrongAnswer, BrokenServer."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for stream in FASTS.values():
        first_byte_p99_ms(server, stream)  # a warm-up
    for _ in range(rounds):
        for name, stream in FASTS.items():
            found[f"{name}, alone"].append(first_byte_p99_ms(server, stream))
        with crowded(server.port):
            for name, stream in FASTS.items():
                found[f"{name}, crowded"].append(first_byte_p99_ms(server, stream))
    return found


def judge(found: dict[str, list[float]]) -> Verdict:
    crowded, alone = (Figure.of(found[f"{TOLD}, {way}"]) for way in ("crowded", "alone"))
    name = "time to first byte of fifty streams, p99, beside the crowd against alone"
    return compared(name, crowded, alone, MOST_RATIO)


def run(rounds: int) -> dict[str, list[float]]:
    """On cores as in the benchmark."""
    cores = layout(sorted(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="octet-crowd-") as folder, ExitStack() as stack:
        _, ports = stack.enter_context(mock_started(Path(folder), cores.mock))
        others = Path(folder) / "crowd"
        others.mkdir()
        patient, crowds = stack.enter_context(mock_started(others, cores.mock))
        os.setpriority(os.PRIO_PROCESS, patient.pid, PATIENT)
        workers = [ports[0], crowds[1]]  # each port has a model of its own
        server = stack.enter_context(gateway_started(Path(folder), cores.servers, FLEET, workers))
        with pinned({cores.load}):
            return measure(server, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, default=Path("out/crowd.json"))
    parser.add_argument("--readers-of", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.readers_of is not None:
        asyncio.run(crowd(given.readers_of))
        return 0
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if len(os.sched_getaffinity(0)) < 2 or most < 3 * SLOW:
        parser.error(f"two cores and {3 * SLOW} open files are needed; here {most} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        found = run(given.rounds)
    except (WrongAnswer, BrokenServer) as error:
        print(f"crowd: {error}", file=sys.stderr)
        return 3
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(found) + "\n")
    for name, values in found.items():
        print(f"{name}: p99 {Figure.of(values).text(1)} ms")
    verdict = judge(found)
    print(verdict.text())
    return int(verdict.is_missed)


if __name__ == "__main__":
    sys.exit(main())
