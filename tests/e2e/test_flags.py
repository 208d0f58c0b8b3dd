"""Options that vLLM does not know are found before a GPU is: each slug's own vLLM is asked, in a container."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import PROJECT, ROOT

SLUGS = sorted(path.parent.name for path in ROOT.glob("docker/*/card.yaml"))
SERVE = (ROOT / "docker/deepseek-r1-distill-qwen-7b/serve.yaml").read_text()


def check_flags(*words: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts/check_flags.py", *words]
    env = os.environ | {"COMPOSE_PROJECT_NAME": PROJECT} | extra
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)


def test_every_slug_is_accepted_by_its_pinned_vllm() -> None:
    """serve.yaml, Compose's command and the launcher's words pass the parser of the very wheel the card pins."""
    done = check_flags()
    assert (done.returncode, [line.split(" by ")[0] for line in sorted(done.stdout.splitlines())]) == (
        0,
        [f"{slug}: accepted" for slug in SLUGS],
    ), done.stderr[-3000:]


def test_quantising_at_load_is_accepted() -> None:
    """The other source of step3p5-fp8 brings an option of its own, which the service's command must carry."""
    settings = {"STEP3P5_FP8_SOURCE": "online"}
    done = check_flags("step3p5-fp8", **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    files = ["docker", "compose", "--profile", "step3p5-fp8", "config"]
    service = subprocess.run(
        files, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=True
    )
    assert "- --quantization\n      - fp8\n" in service.stdout


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("enable-reasoning: true", "unrecognized arguments: --enable-reasoning"),
        pytest.param(
            "max-modle-len: 1024", "unrecognized arguments: --max-modle-len", marks=pytest.mark.full
        ),
        pytest.param(
            "reasoning-parser: deepseek_r2", "invalid reasoning parser: deepseek_r2", marks=pytest.mark.full
        ),
        ("""speculative-config: '{"methud": "mtp"}'""", "methud is not known"),
    ],
)
def test_a_wrong_option_is_refused_in_vllms_own_words(tmp_path: Path, line: str, words: str) -> None:
    """A misspelt option, one that vLLM has dropped, a parser that is not there."""
    tried = tmp_path / "serve.yaml"
    key = line.split(":")[0]
    kept = [old for old in SERVE.splitlines() if not old.startswith(f"{key}:")]
    tried.write_text("\n".join([*kept, line, ""]))
    done = check_flags("deepseek-r1-distill-qwen-7b", tried)
    assert done.returncode == 1, done.stderr[-3000:]
    assert words in done.stderr
    assert done.stdout.startswith("deepseek-r1-distill-qwen-7b: REFUSED by vLLM ")


def test_an_unknown_slug_is_one_line() -> None:
    """A mistyped slug starts no container."""
    done = check_flags("deepseek")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "there is no slug 'deepseek'" in done.stderr
