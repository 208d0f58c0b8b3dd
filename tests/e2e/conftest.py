"""One real stack for the whole session: built from the repository, started with one command, removed at the end."""

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

import docker
from tests.e2e.stack import GATEWAY, ROOT, Stack

SLUG, MODEL = "qwen3-0p6b-cpu", "qwen3-0.6b"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A start from nothing takes minutes on a small machine."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def alone() -> Iterator[None]:
    """One run at a time on a host: a second one, with the same names and ports, waits for the first."""
    with (Path(tempfile.gettempdir()) / "octet-e2e.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, alone: None) -> Iterator[Stack]:
    try:
        stack = Stack(SLUG)
    except docker.errors.DockerException as error:
        pytest.fail(f"no Docker Engine answers ({error}); run: make docker-engine INSTALL=1", pytrace=False)
    stack.down("--volumes")
    try:
        stack.compose("--profile", SLUG, "build", "--quiet")
        stack.up()
        yield stack
    finally:
        stack.keep_logs(ROOT / "out" / "e2e")
        stack.down("--volumes")


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[OpenAI]:
    """The OpenAI client as a developer would make it: an address and nothing else."""
    with OpenAI(base_url=f"{GATEWAY}/v1", api_key="any", timeout=120, max_retries=0) as client:
        yield client
