"""The real job as a process, the real SDK inside it, and a local hub over loopback."""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.hub.server import Hub

REPO = "twins/tiny"
SLUG = "tiny-cpu"
SOURCES = Path(__file__).parents[3] / "model-cache" / "src"
SHARDS = {"model-00001-of-00002.safetensors": 4_000_000, "model-00002-of-00002.safetensors": 3_000_000}


@dataclass(frozen=True)
class Outcome:
    """How a run of the job ended."""

    code: int
    lines: list[dict[str, Any]]
    stderr: str
    cpu_s: float
    wall_s: float


class Job:
    """The weights job as an operator runs it, over its own volume."""

    def __init__(self, volume: Path, endpoint: str) -> None:
        self.volume = volume
        self.settings = {
            "MODEL_CACHE_SLUG": SLUG,
            "MODEL_CACHE_REPO": REPO,
            "MODEL_CACHE_DIR": str(volume),
            "MODEL_CACHE_ENDPOINT": endpoint,
            "MODEL_CACHE_PORT": "0",
        }

    def start(
        self, *command: str, settings: dict[str, str] | None = None, stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Start it; the caller waits for it or kills it. *command* replaces ``-m model_cache``."""
        environment = {"PATH": os.defpath, "HOME": "/nonexistent", "PYTHONPATH": str(SOURCES)}
        return subprocess.Popen(
            [sys.executable, *(command or ("-m", "model_cache"))],
            env=environment | self.settings | (settings or {}),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **settings: str) -> Outcome:
        """Run it to its end, with further ``MODEL_CACHE_*`` *settings*."""
        started, before = time.monotonic(), os.times()
        with self.start(*command, settings=settings) as process:
            stdout, stderr = process.communicate(timeout=60)
        after = os.times()
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        lines = [json.loads(line) for line in stdout.splitlines()]
        return Outcome(process.returncode, lines, stderr, cpu_s, time.monotonic() - started)

    def run_text(self, task: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run another task than the default one, whose standard output is not lines of JSON."""
        command = ("-m", "model_cache", task)
        with self.start(*command, settings=settings) as process:
            stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def run_inventory(self) -> list[str]:
        """What `make weights` says."""
        with self.start("-m", "model_cache", "inventory") as process:
            stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (0, "")
        return stdout.splitlines()

    def run_killed(self, after_s: float, number: int = signal.SIGKILL) -> int:
        """Start it, signal it after so many seconds unless it ended by then, and return its exit status."""
        with self.start() as process:
            try:
                process.communicate(timeout=after_s)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                process.communicate(timeout=20)
            return process.returncode

    def run_killed_with(self, pattern: str, count: int) -> None:
        """Start it, and kill it as soon as so many files of the volume match *pattern* and have something in them."""
        with self.start(stdout=subprocess.DEVNULL) as process:
            while sum(path.stat().st_size > 0 for path in self.volume.glob(pattern)) < count:
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
            process.communicate(timeout=20)

    @property
    def link(self) -> Path:
        """What a worker follows."""
        return self.volume / "slugs" / SLUG

    def published(self) -> list[Path]:
        """Every snapshot that claims to be ready."""
        return [path.parent for path in self.volume.glob("models/*/*/*/READY.json")]


def hashes(root: Path) -> dict[str, str]:
    """Relative path and sha256 of every file below *root*, but READY.json."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "READY.json")
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of one sharded model of 7 MB, whose bytes are the same in every session."""
    root = tmp_path_factory.mktemp("models")
    model = root / REPO
    (model / "extra").mkdir(parents=True)
    noise = random.Random(7)
    for name, size in SHARDS.items():
        (model / name).write_bytes(noise.randbytes(size))
    (model / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {f"layer.{i}": name for i, name in enumerate(SHARDS)}})
    )
    (model / "extra" / "说明.md").write_text("A path that is not ASCII.")
    (model / "empty.txt").touch()
    return root


@pytest.fixture
def true_hashes(models: Path) -> dict[str, str]:
    """What a right snapshot holds."""
    return hashes(models / REPO)


@pytest.fixture
def hub(models: Path) -> Iterator[Hub]:
    """A hub that serves ``models`` at full speed."""
    with Hub(models).running() as server:
        yield server


@pytest.fixture
def job(tmp_path: Path, hub: Hub) -> Job:
    """The job, told to fetch the model from ``hub`` into an empty volume."""
    return Job(tmp_path / "volume", hub.endpoint)
