"""Weights that were fetched once reach a second host: on a disk, or over the LAN."""

import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.models.volumes import Volume

from tests.e2e.conftest import SLUG
from tests.e2e.stack import PROJECT, ROOT, Stack
from tests.e2e.test_examples import run

JOB = f"{SLUG}-weights"
READY = f"print(open('/weights/slugs/{SLUG}/READY.json').read())"


@pytest.fixture
def elsewhere(stack: Stack) -> Iterator[Volume]:
    """Another host's weights volume, empty."""
    volume = stack.client.volumes.create()
    yield volume
    volume.remove()


def job(stack: Stack, volume: Volume, network: str, mounts: list[str], **settings: str) -> str:
    """The weights job as that host runs it, without any hub; returns READY.json."""
    image, user = f"{PROJECT}-{JOB}", "10001:10001"
    given = {
        "network": network,
        "volumes": [f"{volume.name}:/weights", *mounts],
        "remove": True,
        "user": user,
    }
    names = {
        "MODEL_CACHE_SLUG": SLUG,
        "MODEL_CACHE_REPO": "Qwen/Qwen3-0.6B",
        "MODEL_CACHE_ENDPOINT": "http://127.0.0.1:1",
    }
    stack.client.containers.run(
        image, environment=names | settings, read_only=True, tmpfs={"/tmp": "mode=1777"}, **given
    )
    return str(stack.client.containers.run(image, ["-c", READY], entrypoint="python3", **given).decode())


def published(stack: Stack) -> dict[str, object]:
    words = ["run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "python3", JOB, "-c", READY]
    return dict(json.loads(stack.compose("--profile", SLUG, *words).stdout))


@pytest.mark.full
def test_on_a_disk(stack: Stack, elsewhere: Volume, tmp_path: Path) -> None:
    """`make weights-export` here, an import there: the same digest, without any network."""
    tmp_path.chmod(0o755)
    done = run(ROOT / "scripts/weights-export", SLUG, tmp_path, "1000000")
    assert done.returncode == 0, done.stderr
    [export] = tmp_path.iterdir()
    subprocess.run(["sha256sum", "--check", "--quiet", "parts.sha256"], cwd=export, check=True)
    brought = json.loads(
        job(stack, elsewhere, "none", [f"{tmp_path}:/import:ro"], MODEL_CACHE_IMPORT_DIR="/import")
    )
    assert brought["digest"] == published(stack)["digest"]


@pytest.mark.full
def test_over_the_lan(stack: Stack, elsewhere: Volume, tmp_path: Path) -> None:
    """`serve-weights` is hardened like the rest, gives nothing without its token, and all of it with it."""
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o444)
    tmp_path.chmod(0o755)
    stack.compose("up", "-d", "--build", "--wait", "serve-weights", MODEL_CACHE_SERVE_TOKEN_FILE=str(token))
    try:
        node = {
            "MODEL_CACHE_FALLBACKS": "node:http://serve-weights:8004",
            "MODEL_CACHE_NODE_TOKEN_FILE": "/token",
        }
        brought = json.loads(job(stack, elsewhere, f"{PROJECT}_serve", [f"{token}:/token:ro"], **node))
    finally:
        stack.compose("rm", "--stop", "--force", "serve-weights")
    assert brought["digest"] == published(stack)["digest"]
