"""How a slug is served, read from its own files: serve.yaml, the environment of its image, its served names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bench.gpu.rows import Row

DOCKER = Path(__file__).resolve().parents[2] / "docker"
CACHES = {"XDG_CACHE_HOME", "HF_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH", "DG_JIT_CACHE_DIR",
          "FLASHINFER_WORKSPACE_BASE"}  # fmt: skip
CONTAINER_ONLY = {"PATH", "PYTHONPATH", "HOME", "PIP_DISABLE_PIP_VERSION_CHECK"}


def options(row: Row) -> dict[str, Any]:
    """The slug's serve.yaml with the row's differences, on the row's cards; weights made up, unless from files."""
    shipped = yaml.safe_load((DOCKER / row.slug / "serve.yaml").read_text())
    scaled = {"tensor-parallel-size": row.gpus} if "tensor-parallel-size" in shipped else {}
    loading = {} if row.files else {"load-format": "dummy", "safetensors-load-strategy": None}
    merged = shipped | scaled | loading | dict(row.options)
    return {name: value for name, value in merged.items() if value is not None}


def environment(row: Row, caches: Path) -> dict[str, str]:
    """What the slug's image sets, with its caches below `caches`; empty values of the row take a variable away."""
    image = image_environment((DOCKER / row.slug / "Dockerfile").read_text())
    moved = {name: value.replace("/cache", str(caches), 1) for name, value in image.items() if name in CACHES}
    merged = image | moved | dict(row.environment)
    return {name: value for name, value in merged.items() if value and name not in CONTAINER_ONLY}


def image_environment(dockerfile: str) -> dict[str, str]:
    """All that a Dockerfile's ENV lines set, continued lines joined."""
    joined = dockerfile.replace("\\\n", " ")
    words = [word for line in re.findall(r"^ENV (.*)$", joined, re.MULTILINE) for word in line.split()]
    return dict(word.split("=", 1) for word in words)


def served_names(slug: str) -> list[str]:
    """Under which names clients ask for the slug."""
    text = (DOCKER / slug / "model.env").read_text()
    found = re.search(r'^SERVED_MODEL_NAMES="?([^"\n]*)"?$', text, re.MULTILINE)
    if found is None:
        raise LookupError(f"docker/{slug}/model.env has no SERVED_MODEL_NAMES")
    return found[1].split()


def command(checkpoint: Path, config: Path, slug: str, port: int) -> list[str]:
    """vLLM's words, as the launcher and Compose put them together."""
    where = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    return ["serve", str(checkpoint), *where, "--served-model-name", *served_names(slug)]


def differences(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By what a recorded start differs from the slug's own files as they are today; null: it went without."""
    plain = Row("", record["slug"], record["used_gpus"], "", files=record.get("files", False))
    ours = environment(plain, Path("CACHES")) | {"VLLM_SERVER_DEV_MODE": "1"}
    parts = {
        "options": changed(options(plain), record["options"]),
        "environment": changed(ours, record["environment"]),
        "config": dict(record["config"]),
    }
    return {name: part for name, part in parts.items() if part}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What is other in `after`, None where it is absent."""
    names = sorted({*before, *after})
    return {name: after.get(name) for name in names if before.get(name) != after.get(name)}
