"""What one slug's files say about the same thing agrees: names, layouts, parsers, times."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SLUGS = sorted(path.parent for path in ROOT.glob("docker/*/card.yaml"))
GPU_SLUGS = [slug for slug in SLUGS if yaml.safe_load((slug / "card.yaml").read_text())["hardware"]["gpus"]]
TEMPLATE = yaml.safe_load((ROOT / "docker/worker.yaml").read_text())["services"]["worker"]
BIG_BYTES = 100e9  # from here on reading by page faults is too slow
SLOWEST_BYTES_PER_S = 60e6  # a start must be granted the time that this disk takes

each_slug = pytest.mark.parametrize("slug", SLUGS, ids=lambda slug: slug.name)
each_gpu_slug = pytest.mark.parametrize("slug", GPU_SLUGS, ids=lambda slug: slug.name)


def card(slug: Path) -> dict[str, Any]:
    return yaml.safe_load((slug / "card.yaml").read_text())


def serve(slug: Path) -> dict[str, Any]:
    return yaml.safe_load((slug / "serve.yaml").read_text())


def worker(slug: Path) -> dict[str, Any]:
    """The slug's service over the template it extends."""
    own = yaml.safe_load((slug / "compose.yaml").read_text())["services"][slug.name]
    return TEMPLATE | own | {"environment": TEMPLATE["environment"] | own.get("environment", {})}


def env(slug: Path) -> dict[str, str]:
    lines = re.findall(r'^(\w+)="?([^"\n]*)', (slug / "model.env").read_text(), re.MULTILINE)
    return dict(lines)


def seconds(text: str) -> int:
    """A duration as Compose writes it."""
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def ready_timeout_s(slug: Path) -> int:
    found = re.search(r"VLLM_ENGINE_READY_TIMEOUT_S=(\d+)", (slug / "Dockerfile").read_text())
    return int(found[1]) if found else 600


@each_slug
def test_card_and_environment_name_the_same_weights(slug: Path) -> None:
    """The job fetches what the card describes, and workers claim the GPUs that it counts."""
    facts = card(slug)
    assert env(slug)["WEIGHTS_REPO"] == facts["weights"]["repo"]
    assert int(env(slug).get("GPUS", "0")) == facts["hardware"]["gpus"]


@each_slug
def test_served_options_are_those_of_the_card(slug: Path) -> None:
    """Parsers, context, images, and from where media may be fetched (media.invalid: from nowhere)."""
    facts, options = card(slug)["serving"], serve(slug)
    assert facts["parsers"].get("reasoning") == options.get("reasoning-parser")
    assert facts["parsers"].get("tools") == options.get("tool-call-parser")
    assert ("tool-call-parser" in options) == options.get("enable-auto-tool-choice", False)
    assert facts["context"] == options.get("max-model-len", facts["model_context"])
    assert {*facts.get("media_domains", ())} == {*options.get("allowed-media-domains", ())} - {
        "media.invalid"
    }
    limits = json.loads(options.get("limit-mm-per-prompt", "{}"))
    assert set(limits.values()) == {images["per_prompt"] for images in [facts.get("images")] if images}


@each_slug
def test_what_a_worker_is_warmed_with_is_all_that_it_can_do(slug: Path) -> None:
    """Text, tools where calls are parsed, images where they are taken; Compose says what the card says."""
    facts = card(slug)["serving"]
    can = [
        "text",
        *(["tools"] if "tools" in facts["parsers"] else []),
        *(["images"] if "images" in facts else []),
    ]
    assert facts["warms"] == can
    assert worker(slug)["environment"]["LAUNCHER_WARMS"].split() == can


@each_slug
def test_each_slug_has_a_variable_of_its_own_for_another_vllm(slug: Path) -> None:
    """Who builds one slug with another vLLM changes no other slug's image."""
    argument = worker(slug)["build"]["args"]["VLLM_REQUIREMENT"]
    assert argument == f"${{{slug.name.upper().replace('-', '_')}_VLLM_REQUIREMENT:-}}"


@each_slug
def test_each_engine_takes_requests_by_priority(slug: Path) -> None:
    """Otherwise vLLM 0.32 ignores a request's `priority` without a word."""
    assert serve(slug)["scheduling-policy"] == "priority"


@each_slug
def test_each_engine_tells_cached_tokens(slug: Path) -> None:
    """The usage record has a column for them; without this option vLLM 0.32 leaves them out."""
    assert serve(slug)["enable-prompt-tokens-details"] is True


@each_gpu_slug
def test_the_first_declared_layout_is_served(slug: Path) -> None:
    """serve.yaml spreads the model over all of the slug's GPUs as the card's first layout says."""
    facts, options = card(slug)["hardware"], serve(slug)
    served = {
        "tensor_parallel": options.get("tensor-parallel-size", 1),
        "expert_parallel": options.get("enable-expert-parallel", False),
    }
    assert facts["layouts"][0] == served
    assert served["tensor_parallel"] == facts["gpus"]


@each_slug
def test_each_stop_waits_longer_than_the_one_inside_it(slug: Path) -> None:
    """vLLM drains within the launcher's grace, and the launcher ends within Docker's."""
    service = worker(slug)
    grace_s = float(service["environment"]["LAUNCHER_STOP_GRACE_S"])
    assert serve(slug)["shutdown-timeout"] < grace_s < seconds(service["stop_grace_period"]) - 5


@each_slug
def test_a_hang_is_declared_in_one_place(slug: Path) -> None:
    """`HANG_AFTER_S` in model.env reaches the launcher; without it Compose and the launcher have the same default."""
    default = f"{Settings.from_environ({'LAUNCHER_SLUG': slug.name}).hang_after_s:g}"
    assert worker(slug)["environment"]["LAUNCHER_HANG_AFTER_S"] == f"${{HANG_AFTER_S:-{default}}}"
    given = {"LAUNCHER_SLUG": slug.name, "LAUNCHER_HANG_AFTER_S": env(slug).get("HANG_AFTER_S", default)}
    assert Settings.from_environ(given).hang_after_s >= float(default)


@each_slug
def test_a_start_is_granted_what_its_size_takes(slug: Path) -> None:
    """vLLM and Docker wait equally long or longer than a slow disk takes; big weights are read ahead."""
    size = card(slug)["weights"]["bytes"]
    assert ready_timeout_s(slug) >= size / SLOWEST_BYTES_PER_S
    assert seconds(worker(slug)["healthcheck"]["start_period"]) >= ready_timeout_s(slug)
    assert size < BIG_BYTES or serve(slug)["safetensors-load-strategy"] == "prefetch"


@each_gpu_slug
def test_load_times_follow_from_the_size(slug: Path) -> None:
    """Seconds at 1 and 5 GB/s, rounded."""
    size = card(slug)["weights"]["bytes"]
    times = card(slug)["hardware"]["load_s"]
    assert times["at_1_gb_per_s"] == pytest.approx(size / 1e9, abs=1)
    assert times["at_5_gb_per_s"] == pytest.approx(size / 5e9, abs=1)


def test_images_for_gpus_share_their_environment() -> None:
    """Where caches are and what is never fetched is the same in all of them."""
    blocks = {
        re.findall(r"^ENV PYTHONPATH=.*?[^\\]$", (slug / "Dockerfile").read_text(), re.MULTILINE | re.DOTALL)[
            0
        ]
        for slug in GPU_SLUGS
    }
    assert len(blocks) == 1
