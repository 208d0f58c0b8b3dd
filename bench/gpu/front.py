"""The gateway before a worker that DNS does not know, as shipped."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.gpu.recipe import DOCKER, served_names
from bench.processes import program, python_module
from bench.servers import Fleet, is_ready, wait_until

READY_S = 30


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
    log, fleet = folder / "gateway.log", Fleet(slug, slug, tuple(served_names(slug)))
    with program(python_module("gateway"), os.sched_getaffinity(0), log, environment):
        if not wait_until(lambda: is_ready(port, fleet), READY_S):
            raise TimeoutError(
                f"the gateway has no ready worker after {READY_S} s: {log.read_text()[-1000:]}"
            )
        yield f"http://127.0.0.1:{port}"
