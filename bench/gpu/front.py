"""The gateway before a worker that DNS does not know, as shipped."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.gpu.recipe import DOCKER

READY_S, END_S = 30, 70


@contextmanager
def gateway(slug: str, worker: str, port: int, folder: Path) -> Iterator[str]:
    """Its base URL, once it routes to the worker. Raises TimeoutError with the end of its log."""
    (folder / "workers").write_text(f"{slug} {worker}\n")
    ours = {
        "CARDS_DIR": DOCKER,
        "WORKERS_FILE": folder / "workers",
        "DNS": 0,
        "PORT": port,
        "OPS_PORT": port + 1,
    }
    environment = os.environ | {f"GATEWAY_{name}": str(value) for name, value in ours.items()}
    with (folder / "gateway.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment, stdout=log, stderr=log)
        try:
            base = f"http://127.0.0.1:{port}"
            wait_ready(base, folder / "gateway.log")
            yield base
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_ready(base: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if has_models(base):
            return
        time.sleep(0.2)
    raise TimeoutError(f"the gateway has no ready worker after {READY_S} s: {log.read_text()[-1000:]}")


def has_models(base: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base}/v1/models", timeout=2) as answer:
            return bool(json.load(answer)["data"])
    except (urllib.error.URLError, OSError):
        return False
