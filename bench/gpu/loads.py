"""vLLM's own load generator against a worker, directly and through the gateway, in turns."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu.worker import VLLM

INPUT, OUTPUT, SPREAD = 256, 128, 0.3  # tokens of a prompt and an answer, and how far they vary
ROUNDS = {1: 3, 32: 3, 256: 5}  # by concurrency, where two ways are compared; else one
PROMPTS = {1: 16, 32: 320, 256: 1536}  # likewise: some seconds of load; else three for each that is open
AT_MOST_S = 240
FIGURES = (
    "completed", "failed", "duration", "request_throughput", "output_throughput", "median_ttft_ms", "p99_ttft_ms",
    "median_tpot_ms", "median_itl_ms", "p99_itl_ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked: the worker (its prefix cache is emptied), its tokenizer's folder, its name; where files go."""

    worker: str
    checkpoint: Path
    model: str
    folder: Path


def measure(target: Target, bases: Mapping[str, str], concurrency: int) -> list[dict[str, Any]]:
    """Every round of one concurrency: each base in turn, who is first changes, one seed a round, the cache empty."""
    compared = len(bases) > 1
    rounds, prompts = (ROUNDS[concurrency], PROMPTS[concurrency]) if compared else (1, 3 * concurrency)
    found = []
    for at in range(rounds):
        for name in sorted(bases, reverse=at % 2 == 1):
            forget_prefixes(target.worker)
            file = target.folder / f"{name}-{concurrency}-{at}.json"
            words = command(target, bases[name], concurrency, prompts, at, file)
            found.append({"round": at, "way": name, "concurrency": concurrency} | once(words, file))
    return found


def once(words: Sequence[str], file: Path) -> dict[str, Any]:
    """One run of `vllm bench serve`; its figures, or what it said last if it failed."""
    file.unlink(missing_ok=True)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=AT_MOST_S, env=dict(os.environ))
    except subprocess.TimeoutExpired:
        return {"failure": f"not done within {AT_MOST_S} s"}
    if done.returncode or not file.exists():
        return {"failure": (done.stdout + done.stderr)[-600:]}
    result = json.loads(file.read_text())
    return {name: result.get(name) for name in FIGURES}


def command(target: Target, base: str, concurrency: int, prompts: int, seed: int, file: Path) -> list[str]:
    """The words, as anybody can repeat them."""
    given = {
        "backend": "openai-chat", "base-url": base, "endpoint": "/v1/chat/completions", "model": target.model,
        "tokenizer": target.checkpoint,
        "dataset-name": "random", "random-input-len": INPUT, "random-output-len": OUTPUT,
        "random-range-ratio": SPREAD, "num-prompts": prompts, "max-concurrency": concurrency, "seed": seed,
        "percentile-metrics": "ttft,tpot,itl", "metric-percentiles": 99, "result-dir": file.parent,
        "result-filename": file.name,
    }  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return [*VLLM, "bench", "serve", *words, "--ignore-eos", "--save-result", "--disable-tqdm"]


def forget_prefixes(worker: str) -> None:
    """Empties the worker's prefix cache (VLLM_SERVER_DEV_MODE=1), or the second of a pair would find the first's."""
    request = urllib.request.Request(f"{worker}/reset_prefix_cache", method="POST")
    with urllib.request.urlopen(request, timeout=10):
        return
