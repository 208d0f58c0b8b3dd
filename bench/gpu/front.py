"""The gateway before workers that DNS does not know, as shipped."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.gpu.recipe import DOCKER
from bench.processes import program, python_module
from bench.servers import wait_until

READY_S = 30


@contextmanager
def gateway(
    slug: str, workers: Sequence[str], port: int, folder: Path, policy: str = "least_in_flight"
) -> Iterator[str]:
    """Its base URL, once it routes to all workers. Raises TimeoutError with the end of its log."""
    (folder / "workers").write_text("".join(f"{slug} {worker}\n" for worker in workers))
    (folder / "models.yaml").write_text(json.dumps({"defaults": {"policy": policy}}))
    ours = {
        "CARDS_DIR": DOCKER,
        "WORKERS_FILE": folder / "workers",
        "MODELS_FILE": folder / "models.yaml",
        "SLOW_START_S": 0,  # all have been there before it
        "DNS": 0,
        "PORT": port,
        "OPS_PORT": port + 1,
    }
    environment = os.environ | {f"GATEWAY_{name}": str(value) for name, value in ours.items()}
    log = folder / "gateway.log"
    with program(python_module("gateway"), os.sched_getaffinity(0), log, environment):
        if not wait_until(lambda: ready(port + 1) == len(workers), READY_S):
            raise TimeoutError(f"workers are not ready after {READY_S} s: {log.read_text()[-1000:]}")
        yield f"http://127.0.0.1:{port}"


def ready(ops_port: int) -> int:
    """How many workers the gateway has that are ready."""
    try:
        slugs = httpx.get(f"http://127.0.0.1:{ops_port}/workers", trust_env=False).json()["slugs"]
    except httpx.TransportError:
        return 0
    return sum(worker["state"] == "ready" for slug in slugs for worker in slug["workers"])
