"""`vllm bench serve` against one model in several ways, in turns. Runs in a worker's image and needs nothing of ours.

usage: serve.py --model NAME --tokenizer FOLDER --way NAME=URL [--way NAME=URL ...] [--concurrency 1,8,32] [--rounds 3]
                [--prompts 5] [--input-len 256] [--output-len 128]
Every run has prompts of its own, so that none finds another's in the prefix cache. One JSON object goes to standard
output, what is being done to standard error. OPENAI_API_KEY is the key, where one is needed.
Exit codes: 0 measured · 1 a run failed, the object says how; or a first request was not answered.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VLLM = (sys.executable, "-m", "vllm.entrypoints.cli.main")
SPREAD = 0.3  # by how much lengths vary
AT_MOST_S = 1800
FIGURES = (
    "completed", "failed", "duration", "request_throughput", "output_throughput", "median_ttft_ms", "p99_ttft_ms",
    "median_tpot_ms", "median_itl_ms", "p99_itl_ms",
)  # fmt: skip


def command(
    base: str, model: str, tokenizer: str, lengths: tuple[int, int], seed: int, file: Path
) -> list[str]:
    """The words of one run, without its size; `lengths`: of prompts and answers, in tokens."""
    given = {
        "backend": "openai-chat", "base-url": base, "endpoint": "/v1/chat/completions", "model": model,
        "tokenizer": tokenizer, "dataset-name": "random", "random-input-len": lengths[0],
        "random-output-len": lengths[1], "random-range-ratio": SPREAD, "seed": seed,
        "percentile-metrics": "ttft,tpot,itl", "metric-percentiles": 99, "result-dir": file.parent,
        "result-filename": file.name,
    }  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return [*VLLM, "bench", "serve", *words, "--ignore-eos", "--save-result", "--disable-tqdm"]


def sized(concurrency: int, prompts: int) -> list[str]:
    return ["--max-concurrency", str(concurrency), "--num-prompts", str(prompts)]


def once(words: Sequence[str], file: Path, at_most_s: float = AT_MOST_S) -> dict[str, Any]:
    """One run: its figures, or `failure` with what it said last."""
    file.unlink(missing_ok=True)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=at_most_s)
    except subprocess.TimeoutExpired:
        return {"failure": f"not done within {at_most_s:g} s"}
    if done.returncode or not file.exists():
        return {"failure": (done.stdout + done.stderr)[-600:]}
    result = json.loads(file.read_text())
    figures = {name: result.get(name) for name in FIGURES}
    return figures | ({"said": done.stdout[-600:]} if result.get("failed") else {})


def check(base: str, model: str) -> str:
    """What keeps one request from being answered, in the server's own words; "" if nothing does."""
    body = {"model": model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}",
    }
    request = urllib.request.Request(f"{base}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120):
            return ""
    except urllib.error.HTTPError as error:
        return f"{base} answers {error.code}: {error.read().decode(errors='replace')[:300]}"
    except OSError as error:
        return f"{base} does not answer: {error}"


def measure(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All rounds of all concurrencies; who goes first changes from round to round."""
    ways = [way.partition("=")[::2] for way in given.way]
    found: list[dict[str, Any]] = []
    for concurrency in map(int, given.concurrency.split(",")):
        for at in range(given.rounds):
            for name, base in ways if at % 2 == 0 else reversed(ways):
                print(f"bench: {concurrency} at once, round {at + 1}, {name}", file=sys.stderr, flush=True)
                lengths = given.input_len, given.output_len
                words = command(base, given.model, given.tokenizer, lengths, len(found), folder / "run.json")
                words += sized(concurrency, given.prompts * concurrency)
                words += ["--trust-remote-code"] if given.trust_remote_code else []
                figures = once(words, folder / "run.json")
                found.append({"round": at, "way": name, "concurrency": concurrency} | figures)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--way", action="append", required=True, metavar="NAME=URL")
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=5, help="for each that is open at once")
    parser.add_argument("--input-len", type=int, default=256)
    parser.add_argument("--output-len", type=int, default=128)
    parser.add_argument("--trust-remote-code", action="store_true", help="the tokenizer's code comes with it")
    given = parser.parse_args()
    for problem in filter(None, (check(way.partition("=")[2], given.model) for way in given.way)):
        print(f"bench: {problem}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        loads = measure(given, Path(folder))
    print(json.dumps({"row": given.model, "lengths": [given.input_len, given.output_len], "loads": loads}))
    return int(any("failure" in one or one["failed"] for one in loads))


if __name__ == "__main__":
    sys.exit(main())
