"""The draft of Step-3.5: the pinned release cannot start it, and starts it with docker/step3p5-bf16-mtp/patch.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import SLUG
from tests.e2e.stack import PROJECT, ROOT, Stack

RECIPE = ROOT / "docker/step3p5-bf16-mtp"
PATCHED = "vllm/transformers_utils/configs/step3p5.py"
OPTIONS = [
    "--network=none",
    "--read-only",
    "--cap-drop=ALL",
    "--tmpfs=/tmp",
    "--tmpfs=/cache:mode=1777",
    "--shm-size=1g",
]
SETTINGS = ["--env=VLLM_ENABLE_V1_MULTIPROCESSING=0", "--env=VLLM_CPU_KVCACHE_SPACE=1"]


@pytest.fixture(scope="session")
def image() -> str:
    """The CPU worker's image: the release that the slug pins, built for the CPU."""
    stack = Stack(SLUG)
    stack.compose("--profile", SLUG, "build", "--quiet", SLUG)
    return f"{PROJECT}-{SLUG}"


@pytest.fixture(scope="session")
def site(image: str) -> str:
    """Where the image has vLLM."""
    return run(image, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()


def run(image: str, *words: str, mount: dict[Path, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A Python program in a container of the image."""
    mounts = [f"--volume={here}:{there}:ro" for here, there in (mount or {}).items()]
    command = ["docker", "run", "--rm", *OPTIONS, *SETTINGS, *mounts, "--entrypoint=python3", image, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def generate(image: str, mount: dict[Path, str]) -> subprocess.CompletedProcess[str]:
    """tests/e2e/draft.py with the twin's shape and random weights."""
    files = {
        ROOT / "tests/e2e/draft.py": "/draft.py",
        ROOT / "tests/twins/step": "/checkpoint",
        RECIPE / "serve.yaml": "/serve.yaml",
    }
    return run(image, "/draft.py", "/checkpoint", "/serve.yaml", mount=files | mount)


@pytest.mark.full
def test_the_release_still_needs_the_patch(image: str) -> None:
    """If this fails, vLLM starts the draft by itself: remove patch.py, and its line in the slug's Dockerfile."""
    done = generate(image, {})
    assert done.returncode != 0
    assert "IndexError: list index out of range" in done.stderr


def test_the_patched_release_drafts(image: str, site: str, tmp_path: Path) -> None:
    """patch.py takes the image's own file, and then the draft guesses and tokens come."""
    whole = tmp_path / PATCHED
    whole.parent.mkdir(parents=True)
    whole.write_text(run(image, "-c", f"print(open('{site}/{PATCHED}').read(), end='')").stdout)
    subprocess.run([sys.executable, RECIPE / "patch.py", tmp_path], check=True)
    done = generate(image, {whole: f"{site}/{PATCHED}"})
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert answer["tokens"] == 24
    assert answer["drafts"] > 0
