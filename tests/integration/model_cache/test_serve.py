"""serve-weights under clients that are slow, many or wrong: each has its limits, and who asks rightly is answered."""

import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.wrong_files import record, text

from .conftest import Job

TOKEN = "between-us"
WEIGHTS = os.urandom(1 << 20) * 32
SHARD = "model.safetensors"
HAPPENS_S = 30


@dataclass(frozen=True)
class Serving:
    """The process that serves, and its port."""

    process: "subprocess.Popen[str]"
    port: int
    sha256: str

    def get(self, path: str, timeout: float = HAPPENS_S, **headers: str) -> requests.Response:
        given = {"Authorization": f"Bearer {TOKEN}"} | headers
        return requests.get(f"http://127.0.0.1:{self.port}{path}", headers=given, timeout=timeout)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=HAPPENS_S)

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def kilobytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def published(job: Job) -> str:
    """A snapshot of one file of 32 MiB; returns its sha256."""
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    scratch = job.volume / "scratch"
    scratch.parent.mkdir(parents=True)
    scratch.write_bytes(WEIGHTS)
    stat = scratch.stat()
    file = {
        "path": SHARD,
        "size": stat.st_size,
        "sha256": sha256,
        "mtime_ns": stat.st_mtime_ns,
        "inode": stat.st_ino,
    }
    document = record(file)
    snapshot = job.volume / "models/owner/name" / str(document["digest"])[:16]
    snapshot.mkdir(parents=True)
    scratch.rename(snapshot / SHARD)
    (snapshot / "READY.json").write_bytes(text(document))
    return sha256


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One for all tests, over a volume with one snapshot; ends without a word on standard error."""
    folder = tmp_path_factory.mktemp("serving")
    job = Job(folder / "volume", "http://127.0.0.1:1")
    sha256 = published(job)
    (folder / "token").write_text(TOKEN)
    settings = {"MODEL_CACHE_SERVE_TOKEN_FILE": str(folder / "token"), "MODEL_CACHE_SERVE_PORT": "0"}
    with job.start("-m", "model_cache", "serve", settings=settings) as process:
        assert process.stdout
        yield Serving(process, json.loads(process.stdout.readline())["port"], sha256)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=HAPPENS_S)
    assert (process.returncode, stderr) == (0, "")
    assert TOKEN not in stdout


def answered(connection: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    found = b""
    with suppress(ConnectionResetError):
        while block := connection.recv(1 << 16):
            found += block
    return found


def test_twelve_hundred_slow_connections(serving: Serving) -> None:
    """Beginnings of requests, never an end: health, listing and file are answered, by no more threads than before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    before = serving.threads()
    try:
        with ExitStack() as stack:
            for number in range(1200):
                slow = stack.enter_context(serving.connect())
                slow.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: " + str(number).encode())
            assert serving.get("/health").json() == {"status": "ok"}
            assert serving.get("/v1/weights/owner/name").json()["repo"] == "owner/name"
            assert serving.get(f"/v1/files/{serving.sha256}").content == WEIGHTS
            assert serving.threads() <= before + 4
            assert serving.kilobytes() < 200_000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


ANSWERED = {
    401: f"GET /v1/files/{'0' * 64} HTTP/1.1\r\nHost: a\r\n\r\n",
    400: "no request\r\n\r\n",
    405: "POST /v1/weights/owner/name HTTP/1.1\r\nHost: a\r\n\r\n",
    200: "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
}


def test_requests_without_a_token_fill_no_places(serving: Serving) -> None:
    """Connections that have their answer and stay: the next one is answered, as often as one asks."""
    with ExitStack() as stack:
        for _ in range(160):
            for status, asked in ANSWERED.items():
                connection = stack.enter_context(serving.connect())
                connection.sendall(asked.encode())
                assert connection.recv(12) == f"HTTP/1.1 {status}".encode()
        assert serving.get("/health").status_code == 200
        assert serving.get(f"/v1/files/{serving.sha256}").content == WEIGHTS


def test_a_request_that_does_not_end_is_ended(serving: Serving) -> None:
    """A byte now and then holds a connection for ten seconds, not for ever."""
    with serving.connect() as slow:
        began = time.monotonic()
        slow.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < HAPPENS_S:
                slow.sendall(b"x")
                slow.settimeout(0.2)
                try:
                    if not slow.recv(100):
                        break
                except TimeoutError:
                    continue
        assert time.monotonic() - began < HAPPENS_S


BODIES = {
    "a body that is a request": b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 36\r\n\r\n"
    b"GET /secret HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n",
    "a chunked body": b"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "two requests": b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /secret HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method that there is not": b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a head without an end": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1_000_000,
}


@pytest.mark.parametrize("sent", [pytest.param(sent, id=name) for name, sent in BODIES.items()])
def test_one_request_a_connection(serving: Serving, sent: bytes) -> None:
    """Whatever stands behind it is neither read as a request nor costs the answer."""
    with serving.connect() as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(sent)
        found = answered(connection)

    assert found.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in found.lower()
    is_right = sent is BODIES["two requests"]
    assert found.startswith(b"HTTP/1.1 200" if is_right else b"HTTP/1.1 4")


def test_a_client_that_takes_nothing_holds_up_nobody(serving: Serving) -> None:
    """Twenty that ask for the file and do not read it."""
    ask = f"GET /v1/files/{serving.sha256} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(serving.connect()).sendall(ask)
        assert serving.get(f"/v1/files/{serving.sha256}").content == WEIGHTS
        assert serving.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=5-", 5, None),
        ("bytes=5-9", 5, 10),
        ("bytes=9000000-25000000", 9_000_000, 25_000_001),
        ("bytes=99999999-", 0, None),
        ("bytes=-5", 0, None),
        ("lines=1-2", 0, None),
    ],
)
def test_ranges(serving: Serving, asked: str, begin: int, end: int | None) -> None:
    """As they are asked for; all of it where they are none."""
    answer = serving.get(f"/v1/files/{serving.sha256}", Range=asked)
    expected = WEIGHTS[begin:end]

    assert answer.content == expected
    assert answer.status_code == (200 if expected == WEIGHTS else 206)


WRONG: dict[str, Callable[[str], tuple[str, str]]] = {
    "no token": lambda sha256: (f"/v1/files/{sha256}", ""),
    "a wrong token": lambda sha256: (f"/v1/files/{sha256}", "Bearer guessed"),
    "a token of other letters": lambda sha256: (f"/v1/files/{sha256}", "Bearer \u00e9"),
    "no route": lambda _: ("/v1/other", f"Bearer {TOKEN}"),
    "no content": lambda _: (f"/v1/files/{'0' * 64}", f"Bearer {TOKEN}"),
    "a path": lambda _: ("/v1/files/..%2f..%2fREADY.json", f"Bearer {TOKEN}"),
    "no weights": lambda _: ("/v1/weights/owner/other", f"Bearer {TOKEN}"),
    "no address": lambda _: ("//[/v1", f"Bearer {TOKEN}"),
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_what_is_not_given(serving: Serving, wrong: str) -> None:
    """401 without the token, 404 for what is not there, 400 for what is no address."""
    target, token = WRONG[wrong](serving.sha256)
    ask = f"GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\r\n"
    with serving.connect() as connection:
        connection.sendall(ask.encode("latin-1"))
        found = answered(connection)

    status = 401 if "token" in wrong else 400 if wrong == "no address" else 404
    assert found.startswith(f"HTTP/1.1 {status}".encode())
    assert b"error" in found


def test_nobody_reads_what_it_says(job: Job, tmp_path: Path) -> None:
    """Thousands of requests after its standard output is full: they are answered, and it ends when it is told to."""
    sha256 = published(job)
    (tmp_path / "token").write_text(TOKEN)
    settings = {"MODEL_CACHE_SERVE_TOKEN_FILE": str(tmp_path / "token"), "MODEL_CACHE_SERVE_PORT": "0"}
    with job.start("-m", "model_cache", "serve", settings=settings) as process:
        assert process.stdout
        port = json.loads(process.stdout.readline())["port"]
        serving = Serving(process, port, sha256)
        long = "/" + "x" * 900
        for _ in range(400):
            assert serving.get(long).status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(HAPPENS_S) == 0


WITHOUT = """
import os, resource, sys
from model_cache.__main__ import main
sys.argv = ["model_cache", "serve"]
os.close(free := os.dup(0))
resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))
raise SystemExit(main())
"""


def test_without_descriptors_it_ends_with_one_line(job: Job, tmp_path: Path) -> None:
    """The port is not at fault, and a later start may go well."""
    published(job)
    (tmp_path / "token").write_text(TOKEN)
    settings = {"MODEL_CACHE_SERVE_TOKEN_FILE": str(tmp_path / "token"), "MODEL_CACHE_SERVE_PORT": "0"}
    with job.start("-c", WITHOUT, settings=settings) as process:
        _, said = process.communicate(timeout=HAPPENS_S)
    assert process.returncode == 3
    assert said == "model-cache: weights cannot be served (Too many open files); run again\n"
