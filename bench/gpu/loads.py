"""vLLM's own load generator against a worker, directly and through the gateway, in turns."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu.worker import VLLM

INPUT, OUTPUT, SPREAD = 256, 128, 0.3  # tokens of a prompt and an answer, and how far they vary
PROMPTS = {1: 16, 32: 320, 256: 1536}  # by concurrency: some seconds of load
ROUNDS = {1: 3, 32: 3, 256: 5}
AT_MOST_S = 240
FIGURES = (
    "completed", "failed", "duration", "request_throughput", "output_throughput", "median_ttft_ms", "p99_ttft_ms",
    "median_tpot_ms", "median_itl_ms", "p99_itl_ms",
)  # fmt: skip


def measure(bases: Mapping[str, str], worker: str, checkpoint: Path, model: str, concurrency: int,
            folder: Path) -> list[dict[str, Any]]:  # fmt: skip
    """Every round of one concurrency: each base in turn, who is first changes, one seed a round, the cache empty."""
    found = []
    for at in range(ROUNDS[concurrency]):
        names = sorted(bases, reverse=at % 2 == 1)
        for name in names:
            forget_prefixes(worker)
            file = folder / f"{name}-{concurrency}-{at}.json"
            found.append({"round": at, "way": name, "concurrency": concurrency}
                         | once(bases[name], checkpoint, model, concurrency, at, file))  # fmt: skip
    return found


def once(base: str, checkpoint: Path, model: str, concurrency: int, seed: int, file: Path) -> dict[str, Any]:
    """One run of `vllm bench serve`; its figures, or what it said last if it failed."""
    words = command(base, checkpoint, model, concurrency, seed, file)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=AT_MOST_S, env=dict(os.environ))
    except subprocess.TimeoutExpired:
        return {"failure": f"not done within {AT_MOST_S} s"}
    if done.returncode or not file.exists():
        return {"failure": (done.stdout + done.stderr)[-600:]}
    result = json.loads(file.read_text())
    return {name: result.get(name) for name in FIGURES}


def command(
    base: str, checkpoint: Path, model: str, concurrency: int, seed: int, file: Path
) -> Sequence[str]:
    """The words, as anybody can repeat them."""
    given = {
        "backend": "openai-chat", "base-url": base, "endpoint": "/v1/chat/completions", "model": model,
        "tokenizer": checkpoint, "dataset-name": "random", "random-input-len": INPUT, "random-output-len": OUTPUT,
        "random-range-ratio": SPREAD, "num-prompts": PROMPTS[concurrency], "max-concurrency": concurrency, "seed": seed,
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
