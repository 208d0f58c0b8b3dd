"""How many GPUs a slug needs is said once for people and once for programs, and both say the same."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SLUGS = sorted(path.parent for path in ROOT.glob("docker/*/card.yaml"))

each_slug = pytest.mark.parametrize("directory", SLUGS, ids=lambda path: path.name)


def needed(directory: Path) -> int:
    """What the card says."""
    gpus: int = yaml.safe_load((directory / "card.yaml").read_text())["hardware"]["gpus"]
    return gpus


def worker(directory: Path) -> dict[str, Any]:
    """The slug's own part of its worker service."""
    services = yaml.safe_load((directory / "compose.yaml").read_text())["services"]
    return dict(services[directory.name])


@each_slug
def test_a_launcher_claims_as_many_gpus_as_its_card_needs(directory: Path) -> None:
    """`GPUS` in model.env, which the worker template hands to the launcher, is the card's number."""
    claimed = re.search(r"^GPUS=(.+)$", (directory / "model.env").read_text(), re.MULTILINE)
    assert int(claimed[1] if claimed else 0) == needed(directory)
    template = yaml.safe_load((ROOT / "docker/worker.yaml").read_text())["services"]["worker"]
    assert template["environment"]["LAUNCHER_GPUS"] == "${GPUS:-0}"
    assert "LAUNCHER_GPUS" not in worker(directory).get("environment", {})


@each_slug
def test_a_worker_sees_every_gpu_it_may_choose_from(directory: Path) -> None:
    """Docker hands the same first GPUs to every replica, so it hands over all; a CPU slug asks for none."""
    reserved = worker(directory).get("deploy", {}).get("resources", {}).get("reservations", {})
    counts = [device["count"] for device in reserved.get("devices", [])]
    assert counts == (["all"] if needed(directory) else [])


@each_slug
def test_an_image_owns_the_slots_folder(directory: Path) -> None:
    """A new volume takes its owner from the image's folder; without one the launcher could lock nothing."""
    dockerfile = (directory / "Dockerfile").read_text()
    steps = [ROOT / "docker" / name for name in re.findall(r"source=(build/\S+?),", dockerfile)]
    text = "\n".join([dockerfile, *(step.read_text() for step in steps)])
    assert re.search(r"install --directory --owner octet --group octet /cache /gpu-slots\b", text)
