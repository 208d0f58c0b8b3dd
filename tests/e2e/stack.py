"""The real stack in containers, under a project of its own, driven by Compose and looked at with the docker SDK."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError

from docker.models.containers import Container

import docker

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "octet-e2e"
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
GATEWAY, PROMETHEUS, GRAFANA = "http://127.0.0.1:8000", "http://127.0.0.1:9090", "http://127.0.0.1:3000"
Found = TypeVar("Found")


def wait_for(what: str, look: Callable[[], Found | None], timeout_s: float, every_s: float = 0.5) -> Found:
    """Looks until there is something to see; raises TimeoutError naming `what`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = look()
        if found is not None and found is not False:
            return found
        time.sleep(every_s)
    raise TimeoutError(f"{what}: not within {timeout_s:g} s")


def asking(port: int, path: str, shown: str = "read().decode()") -> str:
    """Python that prints a page of its own container, past any proxy that this has set; shown: or what else of it."""
    connect = f"from http.client import HTTPConnection as C; c = C('127.0.0.1', {port}, timeout=5)"
    return f"{connect}; c.request('GET', {path!r}); print(c.getresponse().{shown})"


def get(url: str, timeout_s: float = 5) -> tuple[int, bytes]:
    """Status and body; status 0 where nothing answers. Past any proxy."""
    try:
        with DIRECTLY.open(url, timeout=timeout_s) as response:
            return response.status, response.read()
    except HTTPError as error:
        return error.code, error.read()
    except (URLError, OSError):
        return 0, b""


def compose_files() -> str:
    """What .env selects (compose.noregistry.yaml on a host without an image registry), and the twins."""
    lines = (ROOT / ".env").read_text().splitlines() if (ROOT / ".env").exists() else []
    chosen = [line.removeprefix("COMPOSE_FILE=") for line in lines if line.startswith("COMPOSE_FILE=")]
    return f"{chosen[-1] if chosen else 'compose.yaml'}:tests/e2e/compose.twins.yaml"


@dataclass
class Stack:
    """One Compose project."""

    slug: str
    client: docker.DockerClient = field(default_factory=docker.from_env)

    def compose(self, *words: str, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
        """`docker compose` in this project; `extra` goes into its environment."""
        env = os.environ | {"COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_FILE": compose_files()} | extra
        done = subprocess.run(
            ["docker", "compose", *words], cwd=ROOT, env=env, text=True, capture_output=True, timeout=1500
        )
        assert not check or done.returncode == 0, f"docker compose {' '.join(words)}:\n{done.stderr[-3000:]}"
        return done

    def up(self) -> None:
        self.compose("up", "-d", "--wait", "--wait-timeout", "300", self.slug)
        self.wait_ready()

    def down(self, *words: str) -> None:
        self.compose("--profile", "*", "down", "--remove-orphans", *words)

    def wait_ready(self, timeout_s: float = 180) -> None:
        wait_for("the gateway with a ready model", lambda: get(f"{GATEWAY}/ready")[0] == 200, timeout_s)

    def container(self, service: str) -> Container:
        """The service's container, running or not. Raises LookupError."""
        found = self._labelled(f"com.docker.compose.service={service}")
        if not found:
            raise LookupError(f"no container of {service}")
        return found[0]

    def containers(self) -> list[Container]:
        return self._labelled()

    def _labelled(self, *labels: str) -> list[Container]:
        """Compose's own containers, but for those of `run`; one started by hand has its image's labels alone."""
        own = (f"com.docker.compose.project={PROJECT}", "com.docker.compose.container-number")
        wanted = [*own, "com.docker.compose.oneoff=False", *labels]
        return self.client.containers.list(all=True, filters={"label": wanted})

    def run_in(self, service: str, code: str) -> tuple[int, str]:
        """Runs Python in a running container; returns exit code and output."""
        result = self.container(service).exec_run(["python3", "-c", code])
        return int(result.exit_code), result.output.decode()

    def ops(self, path: str) -> bytes:
        """An answer of the gateway's ops port, which is not published: asked from inside its container."""
        status, output = self.run_in("gateway", asking(8001, path))
        assert status == 0, output
        return output.encode()

    def slug_status(self, slug: str) -> dict[str, Any]:
        slugs = json.loads(self.ops("/workers"))["slugs"]
        return next(entry for entry in slugs if entry["slug"] == slug)

    def logs(self, service: str) -> str:
        return self.container(service).logs().decode(errors="replace")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Prometheus' answer to an instant query."""
        url = f"{PROMETHEUS}/api/v1/query?query={urllib.request.quote(expression)}"
        status, body = get(url, timeout_s=20)
        assert status == 200, body
        return list(json.loads(body)["data"]["result"])

    def keep_logs(self, directory: Path) -> None:
        """Writes every container's log below `directory`, for whoever has to find out what went wrong."""
        directory.mkdir(parents=True, exist_ok=True)
        for container in self.containers():
            (directory / f"{container.name}.log").write_bytes(container.logs())
