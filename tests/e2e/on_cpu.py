"""`vllm serve` for a twin: the slug's own options, but for those that need GPUs or the real size. Runs in a worker.

usage: on_cpu.py SNAPSHOT --config SERVE_YAML WORD ...      TWIN_WITHOUT: further options that this twin cannot have
"""

import os
import sys
from pathlib import Path

import yaml

ONLY_GPUS = (
    "tensor-parallel-size",
    "enable-expert-parallel",
    "decode-context-parallel-size",
    "moe-backend",
    "no-enable-flashinfer-autotune",
)
TWINS_SIZE = {"max-model-len": 8192, "max-num-seqs": 8, "enforce-eager": True}
OPTIONS = Path("/tmp/serve.yaml")  # the container's own


def main(words: list[str]) -> None:
    at = words.index("--config") + 1
    options = yaml.safe_load(Path(words[at]).read_text())
    without = {*ONLY_GPUS, *os.environ.get("TWIN_WITHOUT", "").split()}
    kept = {name: value for name, value in options.items() if name not in without}
    OPTIONS.write_text(yaml.safe_dump(kept | TWINS_SIZE))
    os.execvp("vllm", ["vllm", "serve", *words[:at], str(OPTIONS), *words[at + 1 :]])


if __name__ == "__main__":
    main(sys.argv[1:])
