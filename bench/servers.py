"""The servers of a benchmark: started on their cores, ready, and held to what they log."""

import enum
import hashlib
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import TypeVar

from bench.answers import MODEL, REASONER, numbered
from bench.processes import program, python_module

T = TypeVar("T")
MAIN, BASE, TWO = "gateway", "gateway-1-worker", "gateway-2-processes"
MOCK_PORTS = 100  # as many workers as a gateway here ever has
LIMITS = ("rpm", "tpm_in", "tpm_out", "concurrency", "monthly_tokens")
START_S = 20  # how long a server may take to start
LOG_LAG_S = 5  # how long a log may lag behind the answers


class BrokenServer(Exception):
    """A server did not start, or did not do all that it does as shipped; the message says which and what."""


class Kind(enum.StrEnum):
    """What a server is, which decides the scenarios it takes part in and how its answers are compared."""

    GATEWAY = "gateway"
    GROWN = "grown"  # the gateway too, with more workers, models or processes than MAIN
    RUST = "rust"
    NGINX = "nginx"
    PYTHON = "python"
    DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Server:
    """A process under measurement. `log`: the file of its output, if it logs every request, or None.

    `models`: the names to ask for, in turn. `rounds`: how many it takes part in at most; None: all.
    `ops`: the gateway's other port.
    """

    key: str
    name: str
    kind: Kind
    pid: int
    port: int
    log: Path | None = None
    models: tuple[str, ...] = (MODEL,)
    rounds: int | None = None
    ops: int = 0


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a gateway here is given: models, each with as many workers. `limited`: a key file, whose one key has every
    limit and never reaches one.
    """

    key: str
    name: str
    models: tuple[str, ...]
    workers: int = 1
    processes: int = 1  # each has a core
    limited: bool = False


MAIN_FLEET = Fleet(MAIN, "gateway", (MODEL, REASONER))
GROWN_FLEETS = (
    Fleet(BASE, "gateway, 1 worker, 1 model", (MODEL,)),
    Fleet("gateway-8-workers", "gateway, 8 workers", (MODEL,), 8),
    Fleet("gateway-64-workers", "gateway, 64 workers", (MODEL,), 64),
    Fleet("gateway-100-models", "gateway, 100 models", tuple(map(numbered, range(100)))),
    Fleet(TWO, "gateway, 2 processes", (MODEL,), processes=2),
)


@contextmanager
def mock_started(folder: Path, core: int) -> Iterator[tuple[Server, list[int]]]:
    """The mock worker, and all ports it listens on. Raises BrokenServer."""
    log = folder / "mock.log"
    words = python_module("bench.mock_worker", "--ports", str(MOCK_PORTS))
    with program(words, {core}, log, os.environ) as process:
        ports = wait_for(process, log, mock_ports)
        yield Server("direct", "mock worker, direct", Kind.DIRECT, process.pid, ports[0]), ports


@contextmanager
def gateway_started(
    folder: Path, cores: Sequence[int], fleet: Fleet, worker_ports: list[int]
) -> Iterator[Server]:
    """The gateway as shipped, ready, with an empty log. Raises BrokenServer."""
    log, place = folder / f"{fleet.key}.log", folder / fleet.key
    mine = set(cores[: fleet.processes])
    with program(python_module("gateway"), mine, log, environment(place, fleet, worker_ports)) as process:
        port, ops = wait_for(process, log, gateway_ports)
        if not wait_until(lambda: is_ready(port, fleet), START_S):
            raise BrokenServer(f"{fleet.name} has no ready worker after {START_S} s")
        os.truncate(log, 0)
        kind = Kind.GATEWAY if fleet.key == MAIN else Kind.GROWN
        asked = (MODEL,) if fleet.key == MAIN else fleet.models
        yield Server(fleet.key, fleet.name, kind, process.pid, port, log, asked, ops=ops)


def environment(place: Path, fleet: Fleet, worker_ports: list[int]) -> dict[str, str]:
    """A gateway's environment: cards, static workers, free ports, all else as shipped."""
    cards = place / "docker"
    for model in fleet.models:
        write_card(cards / model, model)
    ports = iter(worker_ports)
    lines = [
        f"{model} http://127.0.0.1:{next(ports)}\n" for model in fleet.models for _ in range(fleet.workers)
    ]
    (place / "workers").write_text("".join(lines))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    ours = {"CARDS_DIR": cards, "WORKERS_FILE": place / "workers", "DNS": 0, "PORT": 0, "OPS_PORT": 0}
    ours |= {"PROCESSES": fleet.processes}
    if fleet.limited:
        (place / "keys").write_text(key_file())
        ours |= {"API_KEYS_FILE": place / "keys", "STATE_DIR": place / "state"}
    return inherited | {f"GATEWAY_{name}": str(value) for name, value in ours.items()}


def key_file() -> str:
    """A key file for the key that the load sends."""
    limits = ", ".join(f"{name}: {10**12}" for name in LIMITS)
    digest = hashlib.sha256(b"none").hexdigest()
    return f"keys:\n  bench: {{sha256: [{digest}], limits: {{{limits}}}}}\n"


def write_card(folder: Path, model: str) -> None:
    """The card of a slug that is called as its model; the reasoner's names a parser."""
    folder.mkdir(parents=True)
    parser = "serving:\n  parsers:\n    reasoning: bench\n" if model == REASONER else ""
    (folder / "card.yaml").write_text(f"slug: {model}\n{parser}")
    (folder / "model.env").write_text(f"WEIGHTS_REPO=bench/bench\nSERVED_MODEL_NAMES={model}\n")


def check_log(server: Server, answers: int) -> None:
    """Proves that logging was on: one line per answer since the last look. Empties the log. Raises BrokenServer."""
    if server.log is None:
        return
    log = server.log
    wait_until(lambda: count_requests(log) >= answers, LOG_LAG_S)
    if count_requests(log) != answers:
        raise BrokenServer(f"{server.name} logged {count_requests(log)} requests for {answers} answers")
    os.truncate(log, 0)


def count_requests(log: Path) -> int:
    return log.read_bytes().count(b'"event":"request"')


def wait_for(process: Popen[bytes], log: Path, find: Callable[[str], T | None]) -> T:
    """What `find` reads in a starting server's output. Raises BrokenServer if it ends or says nothing."""
    wait_until(lambda: find(log.read_text()) or process.poll() is not None, START_S)
    found = find(log.read_text())
    if found is None:
        raise BrokenServer(
            f"{process.args!r} did not start (exit code {process.poll()}): {log.read_text()[-500:]}"
        )
    return found


def mock_ports(output: str) -> list[int] | None:
    """The ports in the lines `listening host:port`, once `ready` stands below them."""
    *lines, last = output.split("\n")[:-1] or [""]
    return [int(line.rpartition(":")[2]) for line in lines] if last == "ready" else None


def gateway_ports(output: str) -> tuple[int, int] | None:
    """The data port and the ops port in the gateway's `listening` event."""
    events = [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith("\n")]
    listening = next((event for event in events if event["event"] == "listening"), None)
    return None if listening is None else (port_of(listening["data"]), port_of(listening["ops"]))


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def is_ready(port: int, fleet: Fleet) -> bool:
    """Whether every model of the fleet has a ready worker."""
    asked = urllib.request.Request(  # loopback, over HTTP
        f"http://127.0.0.1:{port}/v1/models", headers={"authorization": "Bearer none"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=2) as response:
            listed = {entry["id"] for entry in json.load(response)["data"]}
            return listed >= set(fleet.models)
    except (urllib.error.URLError, ConnectionError):
        return False


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(look: Callable[[], object], seconds: float) -> bool:
    """Looks 20 times a second until `look` is true; returns whether it was before `seconds` had passed."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
