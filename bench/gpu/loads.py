"""vLLM's own load generator against a worker, directly and through the gateway, in turns."""

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.serve import command, once, sized

LENGTHS = 256, 128  # tokens of a prompt and an answer
ROUNDS = {1: 3, 32: 3, 256: 5}  # by concurrency, where two ways are compared; else one
PROMPTS = {1: 16, 32: 320, 256: 1536}  # likewise: some seconds of load; else three for each that is open
AT_MOST_S = 240


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
            words = command(bases[name], target.model, str(target.checkpoint), LENGTHS, at, file)
            figures = once([*words, *sized(concurrency, prompts)], file, AT_MOST_S)
            found.append({"round": at, "way": name, "concurrency": concurrency} | figures)
    return found


def forget_prefixes(worker: str) -> None:
    """Empties the worker's prefix cache (VLLM_SERVER_DEV_MODE=1), or the second of a pair would find the first's."""
    request = urllib.request.Request(f"{worker}/reset_prefix_cache", method="POST")
    with urllib.request.urlopen(request, timeout=10):
        return
