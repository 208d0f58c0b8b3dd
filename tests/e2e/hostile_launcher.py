"""Runs the launcher with real vLLM in the worker's own container, does something to it, and stops it.

usage: python3 -m tests.e2e.hostile_launcher ROW    prints one JSON object: what came of it
       python3 -m tests.e2e.hostile_launcher crowd COUNT    many clients of the ops port, until it is ended

Needs the standard library alone. `/weights` is copied, so that its files may be made wrong.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

from tests import wrong_files
from tests.twins import dialogues

MODEL = "qwen3-0.6b"
PORT, OPS_PORT = 8000, 8003
GRACE_S = float(os.environ.get("LAUNCHER_STOP_GRACE_S") or 60)
WORK = Path("/tmp/hostile")
GPUS = WORK / "gpus"
"""What `nvidia-smi` prints in this container."""
READY_WITHIN_S, TOLD_WITHIN_S, FAULT_S = 400.0, 60.0, 12.0
CLIENTS = 3
STREAM_TOKENS = 400
PIPE_BYTES = 4096
CROWD_ROUNDS = 10
SHORT = {"model": MODEL, "temperature": 0, **dialogues.CHINESE.request()}
COUNTS = {"model": MODEL, "prompt": "1", "max_tokens": STREAM_TOKENS, "ignore_eos": True, "stream": True}


class FailedError(Exception):
    """Something did not come about in time."""


@dataclass
class Found:
    """What a row found. `lost`: of requests begun before SIGTERM, those neither answered whole nor refused; `late`: how
    those begun afterwards ended; `told`: what the row itself wants known."""

    row: str
    ready_s: float | None = None
    whole: int = 0
    refused: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    stream: str | None = None
    exit_code: int | None = None
    stopped_s: float | None = None
    grace_s: float = GRACE_S
    left: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


def until(what: str, condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise FailedError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


# the worker


class Site:
    """The folders of one worker."""

    def __init__(self, name: str) -> None:
        self.root = WORK / re.sub(r"\W+", "-", name)
        self.weights, self.slots, self.cache, self.state = (
            self.root / part for part in ("weights", "slots", "cache", "state")
        )
        for folder in (self.slots, self.cache, self.state):
            folder.mkdir(parents=True)
        shutil.copytree("/weights", self.weights, symlinks=True, ignore=shutil.ignore_patterns(".*"))
        self.ready = next(self.weights.glob("models/*/*/*/READY.json"))
        self.right = self.ready.read_bytes()
        self.drips = self.root / "drips"

    @property
    def withdrawn(self) -> Path:
        return self.ready.parent.with_name(f"{self.ready.parent.name}.withdrawn.json")

    @property
    def history(self) -> Path:
        return self.cache / "octet-starts.json"

    def environ(self, **settings: str) -> dict[str, str]:
        """This container's own, with the folders of this site."""
        paths = f"{os.environ['PYTHONPATH']}:{Path.cwd()}"
        return os.environ | {
            "LAUNCHER_WEIGHTS_DIR": str(self.weights),
            "LAUNCHER_GPU_SLOTS_DIR": str(self.slots),
            "LAUNCHER_CACHE_DIR": str(self.cache),
            "LAUNCHER_STATE_DIR": str(self.state),
            "HOSTILE_DRIPS": str(self.drips),
            "PYTHONPATH": paths,
            **settings,
        }


class Worker:
    """A launcher that this program has started as its image does. Its output is read only if `read`."""

    def __init__(self, site: Site, *, read: bool = True, files: int | None = None, **settings: str) -> None:
        limit = [] if files is None else ["prlimit", f"--nofile={files}"]
        entrypoint = ["env", "--block-signal=TERM,INT", sys.executable, "-m", "launcher"]
        words = ["--served-model-name", MODEL, "--middleware", "tests.e2e.dripping.Dripping"]
        self.site, self._settings = site, settings
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [*limit, *entrypoint, *words],
            env=site.environ(**settings),
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
        )
        self.lines: list[str] = []
        streams = [stream for stream in (self.process.stdout, self.process.stderr) if stream]
        if read:
            self._readers = [threading.Thread(target=self._read, args=(stream,)) for stream in streams]
        else:
            self._readers = []
            for stream in streams:
                fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str]) -> None:
        self.lines.extend(line.rstrip("\n") for line in stream)

    def events(self, event: str) -> list[dict[str, Any]]:
        logged = (json.loads(line) for line in self.lines[:] if line.startswith('{"'))
        return [one for one in logged if one.get("logger") == "launcher" and one.get("event") == event]

    def wait_events(self, event: str, count: int = 1, seconds: float = TOLD_WITHIN_S) -> dict[str, Any]:
        """The last, once there are so many."""
        until(f"{count} of {event}", lambda: self._lives_to_see(len(self.events(event)) >= count), seconds)
        return self.events(event)[-1]

    def _lives_to_see(self, seen: bool) -> bool:
        if not seen and self.process.poll() is not None:
            raise FailedError(f"the launcher ended with {self.process.returncode}")
        return seen

    def wait_ready(self) -> float:
        """Until a client is let in; returns the seconds that took."""
        until("ready", lambda: self._lives_to_see(status_of(PORT, "/v1/models") == 200), READY_WITHIN_S)
        return round(time.monotonic() - self.begun, 1)

    def health(self) -> tuple[int, str]:
        words = [sys.executable, "-m", "launcher", "health"]
        done = subprocess.run(
            words,
            env=self.site.environ(**self._settings),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    def stop(self, found: Found) -> None:
        """SIGTERM, and what comes of it."""
        begun = time.monotonic()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            found.exit_code = self.process.wait(GRACE_S + 15)
            found.stopped_s = round(time.monotonic() - begun, 2)
        for reader in self._readers:
            reader.join(5)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def status_of(port: int, path: str, seconds: float = 5) -> int:
    """0: no answer."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0


def children() -> list[str]:
    """What still runs of a launcher that has ended, by its words: this program is process 1, which adopts it."""
    found = []
    adopted = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    for child in chain.from_iterable(adopted):
        with suppress(OSError):
            words = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [words[:120]] if words else []  # of one that has ended there are none
    return found


def is_of_ours(line: str) -> bool:
    """Whether it is of a traceback of the launcher, or through its code inside vLLM. Of vLLM's own, such as that for a
    tool call that is cut off, each line begins with the name of a process."""
    return line.startswith("Traceback") or "/launcher/" in line


# its clients


class Load:
    """Short chats, one after the other, each on a connection of its own."""

    def __init__(self) -> None:
        self.endings: list[tuple[float, str]] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        wanted = len(self.endings) + count
        until(f"{count} more answers", lambda: len(self.endings) >= wanted, 120)

    def _ask(self) -> None:
        while not self._over.is_set():
            begun = time.monotonic()
            self.endings.append((begun, ending()))
            if self.endings[-1][1] != "whole":
                time.sleep(0.2)


def ending() -> str:
    """How one chat ends: `whole`, `refused` as a worker that stops refuses, or something else."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(SHORT), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"broken: {type(error).__name__}"
    finally:
        connection.close()
    if answer.status == 503 and answer.getheader("retry-after") and b"is stopping" in content:
        return "refused"
    if answer.status != 200:
        return f"{answer.status}: {content[:100]!r}"
    said = json.loads(content)["choices"][0]["message"]["content"]
    return "whole" if said.strip() == dialogues.CHINESE.answer.content else f"other words: {said!r}"


class Stream:
    """A long one, which has begun."""

    def __init__(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
        connection.request(
            "POST", "/v1/completions", json.dumps(COUNTS), {"Content-Type": "application/json"}
        )
        self._answer = connection.getresponse()
        self._begin = self._answer.readline()
        self.ending = ""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            lines = [line for line in (self._begin + self._answer.read()).decode().splitlines() if line]
        except (OSError, http.client.HTTPException) as error:
            self.ending = f"broken: {type(error).__name__}"
            return
        last = [json.loads(line.removeprefix("data: ")) for line in lines[-2:-1]]
        reasons = [choice["finish_reason"] for event in last for choice in event.get("choices", [])]
        self.ending = f"{lines[-1]}, {len(lines) - 1} events, {reasons}"

    def join(self) -> str:
        self._thread.join(150)
        return self.ending


# what is done to it while it serves

Fault = Callable[[Worker, Found], AbstractContextManager[object]]


def nothing(worker: Worker, found: Found) -> AbstractContextManager[object]:
    """Nothing more than that nobody reads its output."""
    return nullcontext()


def crowd_of(count: int) -> Fault:
    """So many clients of the ops port, each of which sends a byte every tenth of a second."""

    @contextmanager
    def crowd(worker: Worker, found: Found) -> Iterator[None]:
        words = [sys.executable, "-m", "tests.e2e.hostile_launcher", "crowd", str(count)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            try:
                program.stdout.readline()
                answers = Counter(status_of(OPS_PORT, "/state", 2) for _ in range(10))
                found.told["/state under the crowd"] = dict(answers)
                yield
            finally:
                program.terminate()
                found.told["crowd"] = json.loads(program.stdout.read())

    return crowd


def run_crowd(count: int) -> None:
    """Until SIGTERM. Prints a line once all have come and sent some bytes, and at the end what it did."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    clients: list[socket.socket] = []
    did = Counter(rounds=0, connections=0, bytes=0, most_at_once=0)
    while not over.is_set():
        clients = [client for client in clients if drips(client, did)]
        did["most_at_once"] = max(did["most_at_once"], len(clients))
        while len(clients) < count and not over.is_set():
            clients.append(socket.socket())
            clients[-1].setblocking(False)
            clients[-1].connect_ex(("127.0.0.1", OPS_PORT))
            did["connections"] += 1
        did["rounds"] += 1
        if did["rounds"] == CROWD_ROUNDS:
            print("they are here", flush=True)
        over.wait(0.1)
    print(json.dumps(did))


def drips(client: socket.socket, did: Counter[str]) -> bool:
    """Whether it is still open."""
    try:
        did["bytes"] += client.send(b"G")
    except BlockingIOError:
        return True
    except OSError:
        client.close()
        return False
    return True


@contextmanager
def held(path: Path) -> Iterator[IO[bytes]]:
    """Locked, until the file is closed."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@contextmanager
def turn_kept(worker: Worker, found: Found) -> Iterator[None]:
    """A neighbour keeps `turn.lock`."""
    with held(worker.site.slots / "turn.lock"):
        yield


@contextmanager
def dripping(worker: Worker, found: Found) -> Iterator[None]:
    """vLLM's `/health` never comes to an end."""
    worker.site.drips.touch()
    found.told["health"] = worker.health()
    yield


@contextmanager
def piped(worker: Worker, found: Found) -> Iterator[None]:
    """READY.json is a pipe that nobody writes to."""
    worker.site.ready.unlink()
    os.mkfifo(worker.site.ready)
    yield


@contextmanager
def all_at_once(worker: Worker, found: Found) -> Iterator[None]:
    with ExitStack() as stack:
        for fault in (turn_kept, dripping, piped, crowd_of(2500)):
            stack.enter_context(fault(worker, found))
        yield


@dataclass(frozen=True)
class Serving:
    """A row: what is done to a worker that serves, and how that is started."""

    fault: Fault
    read: bool = True
    files: int | None = None
    gpus: int = 0

    def run(self, found: Found) -> None:
        GPUS.write_text("0, GPU-a\n")
        with launched(
            Site(found.row), found, read=self.read, files=self.files, LAUNCHER_GPUS=str(self.gpus)
        ) as worker:
            found.ready_s = worker.wait_ready()
            with Load() as load:
                load.wait_for_more(10)
                with self.fault(worker, found):
                    begun = time.monotonic()
                    load.wait_for_more(20)
                    time.sleep(max(0.0, begun + FAULT_S - time.monotonic()))
                    stream, told = Stream(), time.monotonic()
                    worker.stop(found)
                    found.stream = stream.join()
            count(found, load.endings, told)


def count(found: Found, endings: list[tuple[float, str]], told: float) -> None:
    """Sort the endings by whether their requests were begun before SIGTERM."""
    before = Counter(one for begun, one in endings if begun < told)
    found.whole, found.refused = before.pop("whole", 0), before.pop("refused", 0)
    found.lost = dict(before)
    found.late = dict(Counter(one for begun, one in endings if begun >= told))


@contextmanager
def launched(site: Site, found: Found, **how: Any) -> Iterator[Worker]:
    worker = Worker(site, **how)
    try:
        yield worker
    finally:
        worker.close()
        found.left += children()
        found.tracebacks += [line for line in worker.lines if is_of_ours(line)]
        if found.exit_code != 0:
            found.told["tail"] = worker.lines[-30:]


# what is in its way before it serves


def turn_kept_before(found: Found) -> None:
    GPUS.write_text("0, GPU-a\n")
    site = Site(found.row)
    with held(site.slots / "turn.lock"), launched(site, found, LAUNCHER_GPUS="1") as worker:
        found.told["problem"] = worker.wait_events("gpus-busy")["problem"]
        worker.stop(found)


def piped_before(found: Found) -> None:
    site = Site(found.row)
    site.ready.unlink()
    os.mkfifo(site.ready)
    with launched(site, found) as worker:
        found.told["problem"] = worker.wait_events("weights-not-ready")["problem"]
        worker.stop(found)


def dripping_before(found: Found) -> None:
    """vLLM is up, and nobody can tell by its `/health`."""
    site = Site(found.row)
    site.drips.touch()
    with launched(site, found) as worker:
        until("vLLM", lambda: status_of(PORT, "/metrics") == 200, READY_WITHIN_S)
        found.told["health"] = [worker.health() for _ in range(3)]  # each waits for as long as it ever does
        found.told["phases"] = [event["phase"] for event in worker.events("phase")]
        worker.stop(found)


# files that are wrong

WRONG_READY = dict(wrong_files.wrong_records())
READY_WAYS = (
    *("nothing at all", "lists 200,000 deep", "files 200,000 deep", "bytes that are no text"),
    *("size is an infinite number", "size is a number of 400 digits", "mtime_ns is a number of 5,000 digits"),
    *("path is 7", "a path with a NUL", "a path with a lone surrogate", "a path that leaves the snapshot"),
)
WRONG_GPUS = {
    "nothing": b"",
    "no text": b"\xff\xfe, GPU-a\n",
    "a number of 5,000 digits": b"9" * 5_000 + b", GPU-a\n",
    "an infinite number": b"1e999, GPU-a\n",
    "a number below zero": b"-1, GPU-a\n",
    "a NUL": b"0, GPU-a\0\n",
    "a lone surrogate": b"0, GPU-\xed\xa0\x80\n",
    "a path": b"0, ../turn.lock\n",
    "lists 200,000 deep": b"[" * 200_000,
    "a megabyte": b"0, GPU-a\n" * 120_000,
}


def plant(way: str, path: Path) -> None:
    """Something wrong where that file should be."""
    take_away(path)
    wrong_files.WAYS[way](path)


def take_away(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def wrong_ready(found: Found) -> None:
    """READY.json and the withdrawal's file beside it, wrong in one way after the other; then right."""
    site = Site(found.row)
    take_away(site.ready)
    told: dict[str, str] = {}
    with launched(site, found) as worker:
        told["none"] = worker.wait_events("weights-not-ready")["problem"]
        ways = {name: WRONG_READY[name] for name in READY_WAYS} | wrong_files.PLANTED
        withdrawals = (*wrong_files.CHOSEN, *wrong_files.CHOSEN)
        for number, (name, way) in enumerate(ways.items()):
            if callable(way):
                way(site.ready)
            else:
                draft = site.ready.with_name("draft")
                draft.write_bytes(way)
                draft.rename(site.ready)
            told[name] = worker.wait_events("weights-not-ready", 2 * number + 2)["problem"]
            plant(withdrawals[number], site.withdrawn)
            take_away(site.ready)
            said = worker.wait_events("weights-not-ready", 2 * number + 3)["problem"]
            told[f"withdrawn: {withdrawals[number]}"] = said
        draft = site.ready.with_name("draft")
        draft.write_bytes(site.right)
        draft.rename(site.ready)
        found.ready_s = worker.wait_ready()
        count(found, [(0.0, ending())], 1.0)
        worker.stop(found)
    found.told["problems"] = told


def wrong_gpus(found: Found) -> None:
    """What `nvidia-smi` prints."""
    told = {}
    for number, (name, printed) in enumerate(WRONG_GPUS.items()):
        GPUS.write_bytes(printed)
        with launched(Site(f"{found.row}-{number}"), found, LAUNCHER_GPUS="1") as worker:
            told[name] = worker.wait_events("configuration-error")["problem"]
            worker.stop(found)
            if found.exit_code != 0:
                break
    found.told["problems"] = told


def wrong_advice(way: str, found: Found) -> None:
    """What a worker reads only for advice, all wrong in one way, while it starts and while it serves."""
    site = Site(found.row)
    GPUS.write_text("0, GPU-a\n1, GPU-b\n")
    plant(way, site.history)
    plant(way, site.withdrawn)
    is_planted = way in wrong_files.PLANTED
    if is_planted:
        found.told["slot"] = wrong_slot(way, found)
    else:
        plant(way, site.state / "state.json")
        plant(way, site.slots / "GPU-a")
    with (
        held(site.slots / "GPU-a") as slot,
        launched(site, found, LAUNCHER_GPUS="2", LAUNCHER_WARM_S="0") as worker,
    ):
        found.told["busy"] = worker.wait_events("gpus-busy")["problem"]
        slot.close()
        found.ready_s = worker.wait_ready()
        until("its own state", lambda: '"ready"' in (site.state / "state.json").read_text(), TOLD_WITHIN_S)
        plant(way, site.state / "state.json")
        found.told["health"] = worker.health()
        count(found, [(0.0, ending())], 1.0)
        worker.stop(found)
    found.told["dropped"] = [event["problem"] for event in worker.events("history-dropped")]


def wrong_slot(way: str, found: Found) -> str:
    """A slot that is no file cannot be locked: the worker says so and waits to be stopped."""
    site = Site(f"{found.row}-slot")
    plant(way, site.slots / "GPU-a")
    with launched(site, found, LAUNCHER_GPUS="2", LAUNCHER_WARM_S="0") as worker:
        problem = str(worker.wait_events("configuration-error")["problem"])
        worker.stop(found)
    if found.exit_code != 0:
        raise FailedError(f"a worker with a wrong slot ended with {found.exit_code}")
    return problem


SERVING = {
    "a crowd of 1,200 at 1,024 descriptors": Serving(crowd_of(1200), files=1024),
    "a crowd of 2,500": Serving(crowd_of(2500)),
    "output that nobody reads": Serving(nothing, read=False),
    "a neighbour keeps turn.lock": Serving(turn_kept, gpus=1),
    "/health drips": Serving(dripping),
    "READY.json is a pipe": Serving(piped),
    "all at once": Serving(all_at_once, read=False, gpus=1),
}
BEFORE = {
    "a neighbour keeps turn.lock before it starts": turn_kept_before,
    "READY.json is a pipe before it starts": piped_before,
    "/health drips while it starts": dripping_before,
}
WRONG = {"wrong READY.json": wrong_ready, "wrong nvidia-smi": wrong_gpus}


def run(row: str) -> Found:
    found = Found(row)
    try:
        if row in SERVING:
            SERVING[row].run(found)
        elif row in wrong_files.CHOSEN:
            wrong_advice(row, found)
        else:
            (BEFORE | WRONG)[row](found)
    except FailedError as error:
        found.problem = str(error)
    return found


def main(words: Sequence[str]) -> None:
    if words[0] == "crowd":
        run_crowd(int(words[1]))
        return
    WORK.mkdir(exist_ok=True)
    print(json.dumps(asdict(run(words[0])), ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
