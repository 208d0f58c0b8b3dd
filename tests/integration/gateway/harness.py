"""The real gateway as a process on free loopback ports: its cards, its log, its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
from openai import OpenAI

from tests.fake_worker import WAIT_S, FakeWorker

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
START_S = 60.0  # of a busy host, for a program that imports as much
FAST = {
    "GATEWAY_FIELD_POLICY": "permissive",  # requests carry the fake worker's script, and padding
    "GATEWAY_ALLOWED_HOSTS": "*",  # raw requests name whatever host they like
    "HTTP_PROXY": "http://127.0.0.1:1",  # nothing here asks a proxy
    "GATEWAY_DNS": "0",
    "GATEWAY_INTERVAL_S": "0.1",
    "GATEWAY_PROBE_TIMEOUT_S": "1",
    "GATEWAY_DRAIN_DELAY_S": "0",
    "GATEWAY_PORT": "0",
    "GATEWAY_OPS_PORT": "0",
}
Pools = Mapping[str, Sequence[FakeWorker]]
T = TypeVar("T")


def wait_until(look: Callable[[], T], what: str, wait_s: float = WAIT_S) -> T:
    """Polls `look` until it is true, and returns what it said; fails after `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {wait_s} s: {what}"
        time.sleep(0.01)
    return seen


def ask(model: str, do: str | None = None, **script: object) -> dict[str, Any]:
    """The body of a chat request whose answer the fake worker makes as `script` says."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return body | {"script": {"do": do, **script}} if do else body


class Site:
    """A folder with cards and the static list of workers."""

    def __init__(self, path: Path) -> None:
        self.cards = path / "docker"
        self.workers = path / "workers"
        self.cards.mkdir()
        self.workers.touch()

    def declare(
        self, slug: str, *names: str, reasons: bool = False, progress: tuple[float, float] = (60, 180),
        serving: str = "",
    ) -> None:  # fmt: skip
        """Writes the card of `slug`, served under `names`; with `reasons` it names a reasoning parser; `progress` are
        the seconds of standing still until a worker is suspect, and down; `serving`: that section of the card."""
        directory = self.cards / slug
        directory.mkdir(exist_ok=True)
        section = serving or ("{parsers: {reasoning: qwen3}}" if reasons else "{}")
        limits = f"progress: {{suspect_s: {progress[0]}, down_s: {progress[1]}}}\n"
        (directory / "card.yaml").write_text(f"slug: {slug}\nserving: {section}\n{limits}")
        (directory / "model.env").write_text(
            f'WEIGHTS_REPO=o/{slug}\nSERVED_MODEL_NAMES="{" ".join(names)}"\n'
        )

    def attach(self, pools: Pools) -> None:
        lines = [f"{slug} http://{worker.address}\n" for slug, pool in pools.items() for worker in pool]
        self.workers.write_text("".join(lines))


class Gateway:
    """One gateway process. `settings` are GATEWAY_* variables beside those of FAST. With the file of a CA, `ca`, that
    has issued its certificate, all clients of the data port speak TLS."""

    def __init__(self, site: Site, ca: Path | None = None, **settings: object) -> None:
        self.tls = None if ca is None else ssl.create_default_context(cafile=ca)
        own = {"GATEWAY_CARDS_DIR": site.cards, "GATEWAY_WORKERS_FILE": site.workers, **settings}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        environment = inherited | FAST | {name: str(value) for name, value in own.items()}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed in end()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway"], env=environment, stdout=subprocess.PIPE, stderr=self._stderr
        )
        self.log: list[dict[str, Any]] = []
        self.raw_log: list[bytes] = []
        self.reads_log = threading.Event()  # cleared: nobody reads standard output
        self.reads_log.set()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        started = wait_until(lambda: self.events("listening") or self._has_ended(), "listening", START_S)[0]
        self.address, self.ops_address = started["data"], started["ops"]
        self.url = f"{'https' if self.tls else 'http'}://{self.address}"
        self.http = self.client()
        self.ops = httpx.Client(base_url=f"http://{self.ops_address}", timeout=WAIT_S, trust_env=False)
        self.openai = OpenAI(
            base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=WAIT_S,
            http_client=self.client(),
        )  # fmt: skip

    def event(self, name: str, **facts: object) -> dict[str, Any]:
        """The first log line of this event with these facts; waits for it."""
        return wait_until(
            lambda: self.events(name, **facts) or self._has_ended(), f"log line {name} {facts}"
        )[0]

    def several(self, least: int, name: str, **facts: object) -> list[dict[str, Any]]:
        """The log lines of this event with these facts; waits until there are as many as `least`."""
        return wait_until(
            lambda: found if len(found := self.events(name, **facts)) >= least else None,
            f"{least} log lines {name} {facts}",
        )

    def events(self, name: str, **facts: object) -> list[dict[str, Any]]:
        wanted = {"event": name, **facts}
        return [line for line in list(self.log) if wanted.items() <= line.items()]

    def logged(self, response: httpx.Response) -> dict[str, Any]:
        """The log line of the request that got `response`."""
        return self.event("request", id=response.headers["x-request-id"])

    def chat(self, model: str, do: str | None = None, **script: object) -> httpx.Response:
        return self.http.post(CHAT, json=ask(model, do, **script))

    def slug(self, slug: str) -> dict[str, Any]:
        """What /workers says of one slug."""
        return next(one for one in self.ops.get("/workers").json()["slugs"] if one["slug"] == slug)

    def wait_for(self, slug: str, *states: str) -> None:
        """Waits until the workers of `slug` are in these states."""
        wait_until(
            lambda: [one["state"] for one in self.slug(slug)["workers"]] == list(states), f"{slug} {states}"
        )

    def in_flight(self) -> int:
        slugs = self.ops.get("/workers").json()["slugs"]
        return sum(worker["in_flight"] for slug in slugs for worker in slug["workers"])

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of /metrics that have these labels; 0 if there is none."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        lines = self.ops.get("/metrics").text.splitlines()
        found = (re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line) for line in lines)
        return sum(float(one[2]) for one in found if one and wanted <= set((one[1] or "").split(",")))

    def rss_bytes(self) -> int:
        statm = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(statm[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def client(self) -> httpx.Client:
        """A client of the data port, with connections of its own."""
        return httpx.Client(base_url=self.url, timeout=WAIT_S, trust_env=False, verify=self.tls or True)

    def connect(self, request: bytes = b"") -> socket.socket:
        """A raw connection to the data port, under TLS if it speaks TLS, with `request` already sent. Under TLS its
        end is b"" only if the gateway said goodbye (close_notify)."""
        connection = self.connect_tcp()
        if self.tls:
            connection = self.tls.wrap_socket(
                connection, server_hostname="127.0.0.1", suppress_ragged_eofs=False
            )
        connection.sendall(request)
        return connection

    def connect_tcp(self, sent: bytes = b"") -> socket.socket:
        """A connection to the data port without TLS, with these bytes already sent."""
        host, port = self.address.split(":")
        connection = socket.create_connection((host, int(port)), timeout=WAIT_S)
        connection.sendall(sent)
        return connection

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self, wait_s: float = WAIT_S) -> tuple[int, str]:
        """Waits for the process; returns its exit code, and what it or a library complained of."""
        self._close_clients()
        try:
            code = self.process.wait(wait_s)
        finally:
            self.process.kill()
            self.process.wait(WAIT_S)
            self.reads_log.set()
            self._reader.join(WAIT_S)
            self._stderr.seek(0)
            told = self._stderr.read().decode()
            told += "".join(line["message"] for line in self.events("library"))
            self._stderr.close()
        return code, told

    def _close_clients(self) -> None:
        self.http.close()
        self.ops.close()
        self.openai.close()

    def _has_ended(self) -> list[dict[str, Any]]:
        """Fails if the process is no more."""
        assert self.process.poll() is None, f"the gateway has ended: {self.process.returncode}"
        return []

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.reads_log.wait()
                self.raw_log.append(line)
                self.log.append(json.loads(line))


def run_to_its_end(site: Site, **settings: object) -> subprocess.CompletedProcess[str]:
    """Runs a gateway that is expected to refuse to start."""
    own = {"GATEWAY_CARDS_DIR": site.cards, "GATEWAY_WORKERS_FILE": site.workers, **settings}
    environment = dict(os.environ) | FAST | {name: str(value) for name, value in own.items()}
    return subprocess.run(
        [sys.executable, "-m", "gateway"], env=environment, capture_output=True, text=True, timeout=WAIT_S
    )


def post(body: bytes, *extra: str) -> bytes:
    """A chat request as raw bytes."""
    lines = [f"POST {CHAT} HTTP/1.1", "host: gateway", f"content-length: {len(body)}", *extra]
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_to_end(connection: socket.socket) -> bytes:
    """All bytes until the peer closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
