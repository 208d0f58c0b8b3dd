"""What vLLM says about itself while it starts, found in its log. Pure.

The words are those of vLLM 0.26 and 0.32; where a build says it otherwise the fact is None, never a guess.
"""

import re

NUMBERS = {
    "weights_gib": r"Model loading took ([\d.]+) GiB",
    "weights_s": r"Model loading took .*?and ([\d.]+) s",
    "kv_gib": r"Available KV cache memory: ([\d.]+) GiB",
    "kv_tokens": r"GPU KV cache size: ([\d,]+) tokens",
    "requests_of_full_length": r"Maximum concurrency for [\d,]+ tokens per request: ([\d.,]+)x",
    "compile_s": r"torch\.compile (?:takes|took) ([\d.]+) s",
    "graphs_s": r"Graph capturing finished in ([\d.]+) secs",
    "graphs_gib": r"Graph capturing finished in .*? took ([\d.]+) GiB",
    "engine_init_s": r"init engine \(profile, create kv cache, warmup model\) took ([\d.]+)",
}
WORDS = {
    "attention": r"Using (\w+) attention backend",
    "moe": r"Using '?(\w+)'? (?:\w+ )?MoE backend",
}
PROBLEM = re.compile(
    r"(?:Error|Exception|assert|CUDA out of memory|died|block_n|not divisible|unrecognized arguments)"
)
CALM = re.compile(r"\b(?:INFO|WARNING) \d")


def read(lines: list[str]) -> dict[str, float | str | None]:
    """Every fact of NUMBERS and WORDS; of several ranks the first to speak."""
    text = "\n".join(lines)
    numbers = {name: number(found) for name, found in search(NUMBERS, text).items()}
    return {**numbers, **search(WORDS, text)}


def search(patterns: dict[str, str], text: str) -> dict[str, str | None]:
    found = {name: re.search(pattern, text) for name, pattern in patterns.items()}
    return {name: match and match[1] for name, match in found.items()}


def number(text: str | None) -> float | None:
    return None if text is None else float(text.replace(",", ""))


def problems(lines: list[str], most: int = 12) -> list[str]:
    """The lines that tell why a start failed, the last of them."""
    found = [line[:300] for line in lines if PROBLEM.search(line) and not CALM.search(line)]
    return found[-most:]
