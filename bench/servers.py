"""The servers of a benchmark: started on their cores, ready, and held to what they log."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from bench.processes import python_module

MODEL = "bench-model"
SLUG = "bench"
START_S = 20  # how long a server may take to start
LOG_LAG_S = 5  # how long a log may lag behind the answers


class BrokenServer(Exception):
    """A server did not start, or did not do all that it does as shipped; the message says which and what."""


@dataclass(frozen=True, slots=True)
class Server:
    """A process under measurement. `log`: the file of its standard output, if it logs every request, or None."""

    name: str
    pid: int
    port: int
    log: Path | None


@contextmanager
def started(
    folder: Path, gateway_core: int, load_core: int, chunks: int, interval_ms: int
) -> Iterator[list[Server]]:
    """The gateway and, second, the mock worker behind it, both ready. Raises BrokenServer."""
    with ExitStack() as stack:
        words = [
            "bench.mock_worker",
            "--names",
            MODEL,
            "--chunks",
            str(chunks),
            "--interval-ms",
            str(interval_ms),
        ]
        log = folder / "mock.log"
        process = stack.enter_context(python_module(words, load_core, log, dict(os.environ)))
        mock = Server("mock worker, direct", process.pid, wait_for_port(process, log, mock_port), None)
        log, env = folder / "gateway.log", gateway_environment(folder, mock.port)
        process = stack.enter_context(python_module(["gateway"], gateway_core, log, env))
        gateway = Server("gateway", process.pid, wait_for_port(process, log, gateway_port), log)
        if not wait_until(lambda: is_ready(gateway.port), START_S):
            raise BrokenServer(f"the gateway has no ready worker after {START_S} s")
        os.truncate(log, 0)
        yield [gateway, mock]


def gateway_environment(folder: Path, worker_port: int) -> dict[str, str]:
    """The gateway's environment: one card, one static worker, free ports, all else as shipped."""
    card = folder / "docker" / SLUG
    card.mkdir(parents=True)
    (card / "card.yaml").write_text(f"slug: {SLUG}\n")
    (card / "model.env").write_text(f"WEIGHTS_REPO=bench/bench\nSERVED_MODEL_NAMES={MODEL}\n")
    workers = folder / "workers"
    workers.write_text(f"{SLUG} http://127.0.0.1:{worker_port}\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    ours = {"CARDS_DIR": card.parent, "WORKERS_FILE": workers, "DNS": 0, "PORT": 0, "OPS_PORT": 0}
    return inherited | {f"GATEWAY_{name}": str(value) for name, value in ours.items()}


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


def wait_for_port(process: Popen[bytes], log: Path, find: Callable[[str], int | None]) -> int:
    """The port that `find` reads in a starting server's output. Raises BrokenServer if it ends or says nothing."""
    wait_until(lambda: find(log.read_text()) or process.poll() is not None, START_S)
    port = find(log.read_text())
    if port is None:
        raise BrokenServer(
            f"{process.args!r} did not start (exit code {process.poll()}): {log.read_text()[-500:]}"
        )
    return port


def mock_port(output: str) -> int | None:
    """The port in `listening host:port`."""
    return int(output.rpartition(":")[2]) if output.endswith("\n") else None


def gateway_port(output: str) -> int | None:
    """The data port in the gateway's `listening` event."""
    events = [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith("\n")]
    addresses = (event["data"] for event in events if event["event"] == "listening")
    return next((int(address.rpartition(":")[2]) for address in addresses), None)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def wait_until(look: Callable[[], object], seconds: float) -> bool:
    """Looks 20 times a second until `look` is true; returns whether it was before `seconds` had passed."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
