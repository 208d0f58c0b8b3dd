"""Runs a real launcher with the fake vLLM and reads what it says, event by event."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.unit.launcher.published import publish

SLUG = "fake-1p0b"
PATIENCE_S = 60.0  # a slow host may make a test late
_PACKAGES = Path(__file__).parents[3] / "docker"
_PORTS = range(12_000, 32_000)
_FAKE = Path(__file__).with_name("fake_vllm.py")


def free_port() -> int:
    """A port that nothing listens on, below those that the kernel hands to others meanwhile."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a hundred ports of the loopback are taken")


@dataclass
class Site:
    """The folders, the port and the environment of one worker."""

    root: Path
    port: int = field(default_factory=free_port)
    options: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        """The weights volume."""
        return self.root / "weights"

    def publish(self, slug: str = SLUG) -> Path:
        """Put a snapshot in order; returns its directory."""
        return publish(self.weights, slug)

    def environ(self) -> dict[str, str]:
        """What the worker's container would set."""
        command = " ".join([sys.executable, str(_FAKE), *self.options])
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(_PACKAGES),
            "HTTP_PROXY": "http://127.0.0.1:1",  # nothing here asks a proxy
            "LAUNCHER_SLUG": SLUG,
            "LAUNCHER_WEIGHTS_DIR": str(self.weights),
            "LAUNCHER_STATE_DIR": str(self.root / "state"),
            "LAUNCHER_COMMAND": command,
            "LAUNCHER_PORT": str(self.port),
            "LAUNCHER_CACHE_DIR": str(self.root),
            "LAUNCHER_OPS_PORT": "0",
            "LAUNCHER_WARM_S": "0",
            **self.settings,
        }

    def health(self) -> subprocess.CompletedProcess[str]:
        """Run the container's health check."""
        words = [sys.executable, "-m", "launcher", "health"]
        return subprocess.run(words, env=self.environ(), capture_output=True, text=True, timeout=PATIENCE_S)

    def get(self, path: str) -> Any:
        """Ask the fake vLLM."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S) as answer:
            return json.load(answer)


class Worker:
    """A running launcher; its standard output and error are read as they come."""

    def __init__(self, site: Site, words: tuple[str, ...] = (), prefix: tuple[str, ...] = ()) -> None:
        self.site = site
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "launcher", *words],
            env=site.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._from_out: queue.Queue[str | None] = queue.Queue()
        self._from_err: queue.Queue[str | None] = queue.Queue()
        self._readers = [
            self._reader(self.process.stdout, self.out, self._from_out),
            self._reader(self.process.stderr, self.err, self._from_err),
        ]

    def wait_event(self, event: str, **fields: object) -> dict[str, Any]:
        """The next line of the launcher's log with this event and these fields."""

        def wanted(line: str) -> bool:
            logged = _logged(line)
            return logged.get("event") == event and fields.items() <= logged.items()

        return _logged(self._wait_line(self._from_out, wanted))

    def wait_line(self, start: str) -> str:
        """The rest of the next line on standard output that starts so."""
        return self._wait_line(self._from_out, lambda line: line.startswith(start)).removeprefix(start)

    def wait_error_line(self, start: str) -> str:
        """The rest of the next line on standard error that starts so."""
        return self._wait_line(self._from_err, lambda line: line.startswith(start)).removeprefix(start)

    def events(self, event: str) -> list[dict[str, Any]]:
        """All lines of the launcher's log with this event, so far."""
        return [logged for line in self.out if (logged := _logged(line)).get("event") == event]

    def children(self) -> list[int]:
        """The processes that the launcher has started and that still run."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the launcher; returns its exit code once all its output is read."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """The launcher's exit code once all its output is read."""
        code = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return code

    def terminate(self) -> None:
        """Tell it to stop, if it runs; does not wait."""
        if self.process.poll() is None:
            self.process.terminate()

    def close(self) -> None:
        """End what a failed test left running."""
        self.terminate()
        self.wait()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()

    def _wait_line(self, unread: queue.Queue[str | None], wanted: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + PATIENCE_S
        with contextlib.suppress(queue.Empty):
            while (line := unread.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
                if wanted(line):
                    return line
        raise AssertionError("that line did not come:\n" + "\n".join(self.out + self.err))

    def _reader(
        self, stream: IO[str] | None, lines: list[str], unread: queue.Queue[str | None]
    ) -> threading.Thread:
        assert stream is not None
        reader = threading.Thread(target=_read, args=(stream, lines, unread), daemon=True)
        reader.start()
        return reader


def _read(stream: IO[str], lines: list[str], unread: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.append(line.rstrip("\n"))
        unread.put(lines[-1])
    unread.put(None)


def _logged(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    found: dict[str, Any] = json.loads(line)
    return found
