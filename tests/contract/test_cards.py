"""Cards agree with the files beside them, and are asked before anything is fetched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cards import card
from cards.layout import Layout
from gateway.config.catalog import parse_env

ROOT = Path(__file__).resolve().parents[2]
SLUGS = sorted(path.parent.name for path in ROOT.glob("docker/*/card.yaml"))
ON_GPUS = [slug for slug in SLUGS if card.load(ROOT / "docker", slug).gpus]


def services(path: str) -> Mapping[str, Any]:
    loaded = yaml.safe_load((ROOT / path).read_text())["services"]
    assert isinstance(loaded, dict)
    return loaded


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """As on a command line, also where the tests themselves are run by make."""
    env = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    command = ["make", "-s", "-o", ".venv/.ready", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("slug", SLUGS)
def test_every_card_is_valid(slug: str) -> None:
    """Complete, without a fact that nobody knows, and without a layout that its own shape forbids."""
    assert card.load(ROOT / "docker", slug).slug == slug


@pytest.mark.parametrize("slug", SLUGS)
def test_a_card_agrees_with_its_neighbours(slug: str) -> None:
    """model.env names the same repository and number of GPUs, serve.yaml the layout that the card puts first,
    and whether code is trusted."""
    found = card.load(ROOT / "docker", slug)
    env = parse_env((ROOT / "docker" / slug / "model.env").read_text(), Path("model.env"))
    options = yaml.safe_load((ROOT / "docker" / slug / "serve.yaml").read_text())
    assert env["WEIGHTS_REPO"] == found.weights.repo
    assert int(env.get("GPUS", "0")) == (found.gpus.count if found.gpus else 0)
    served = Layout(options.get("tensor-parallel-size", 1), options.get("enable-expert-parallel", False))
    assert served == (found.gpus.layouts[0] if found.gpus else Layout(1, False))
    assert options.get("max-model-len", found.context) == found.context
    assert options.get("trust-remote-code", False) == found.weights.trust_remote_code


@pytest.mark.parametrize("slug", ON_GPUS)
def test_a_slug_on_gpus_is_checked_before_its_weights_are_fetched(slug: str) -> None:
    """SLUG-weights waits for SLUG-check, which sees the GPUs that the worker sees."""
    found, templates = services(f"docker/{slug}/compose.yaml"), services("docker/worker.yaml")
    waits = {"condition": "service_completed_successfully"}
    assert found[f"{slug}-weights"]["depends_on"][f"{slug}-check"] == waits
    assert found[f"{slug}-check"]["extends"] == {"file": "../worker.yaml", "service": "check"}
    assert templates["check"]["deploy"] == found[slug]["deploy"]


def test_the_check_can_change_and_reach_nothing() -> None:
    """No network, no way to write, no privilege: it looks and says."""
    check = services("docker/worker.yaml")["check"]
    assert check["network_mode"] == "none"
    assert check["read_only"] is True
    assert check["cap_drop"] == ["ALL"]
    assert check["user"] == "10001:10001"
    assert all(volume.endswith(":ro") for volume in check["volumes"])


def test_make_card_prints_a_card() -> None:
    """For people, before they fetch 205 GB."""
    done = make("card", "MODEL=step3p5-fp8")
    assert done.returncode == 0
    assert "stepfun-ai/Step-3.5-Flash-FP8, 205 GB" in done.stdout


def test_make_check_card_says_yes() -> None:
    """The layout that is served, on the GPUs that the card asks for."""
    done = make("check-card", "MODEL=step3p5-fp8", "GPUS=8", "GPU_MEMORY_GB=80")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "step3p5-fp8 can run with TP=8 EP=1 on 8 GPUs of at least 80 GB\n"


def test_kimi_is_for_hopper_alone() -> None:
    """On Blackwell the pinned vLLM takes kernels that a worker without a network cannot get, and ends."""
    assert "141 GB, compute capability 9.0, driver" in make("card", "MODEL=kimi-k2p5").stdout
    assert make("check-card", "MODEL=kimi-k2p5").stdout.endswith(
        "of at least 141 GB, compute capability 9.0\n"
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("MODEL=step3p5-fp8", "TP=8", "EP=0"), 1, ("1280", "8", "128")),
        (("MODEL=kimi-k2p5", "GPU_MEMORY_GB=80"), 1, ("141 GB", "595 GB", "74.4 GB")),
        (("MODEL=step3p5-fp8", "GPUS=4"), 1, ("8 GPUs", "4")),
        (("MODEL=qwen3-0p6b-cpu", "TP=2"), 1, ("CPU",)),
        (("MODEL=step3p5-fp8", "TP=eight"), 2, ("TP", "'eight'")),
        (("MODEL=no-such-model",), 2, ("no-such-model", "step3p5-fp8")),
    ],
)
def test_make_check_card_refuses_in_one_sentence(
    words: tuple[str, ...], code: int, said: tuple[str, ...]
) -> None:
    """The sentence has the numbers; make's own line after it has the exit code."""
    done = make("check-card", *words)
    assert (done.returncode != 0, done.stdout) == (True, "")
    sentence, from_make = done.stderr.splitlines()
    assert [word for word in said if word not in sentence] == []
    assert from_make.endswith(f"Error {code}")


@pytest.mark.parametrize("slug", ON_GPUS)
def test_worker_and_check_get_one_size_of_kv_cache_in_memory(slug: str) -> None:
    """The setting is the slug's own; unset, vLLM gets no word of it. /dev/shm, where the cache lies, sets no limit."""
    found = services(f"docker/{slug}/compose.yaml")
    name = f"{slug.upper().replace('-', '_')}_KV_OFFLOAD_GIB"
    assert f" ${{{name}:+--kv-offloading-size=}}${{{name}:-}}" in found[slug]["command"]
    assert found[f"{slug}-check"]["command"] == f"host {slug} --kv-offload-gib=${{{name}:-}}"
    assert found[slug]["shm_size"] == "4096g"
