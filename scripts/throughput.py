"""`vllm bench throughput` with a slug's own options: the engine alone, no server. Runs in a worker's image.

usage: throughput.py [--input-len 256] [--output-len 128] [--num-prompts 200]
vLLM's own words go to standard output, its last line the figures.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from vllm.benchmarks import throughput
from vllm.utils.argparse_utils import FlexibleArgumentParser

WEIGHTS = Path("/weights/slugs", os.environ.get("LAUNCHER_SLUG", ""))


def words(given: argparse.Namespace) -> list[str]:
    """What is measured, besides serve.yaml's options."""
    sizes = {"input-len": given.input_len, "output-len": given.output_len, "num-prompts": given.num_prompts}
    named = {"model": given.weights, "dataset-name": "random", **sizes}
    return [word for name, value in named.items() for word in (f"--{name}", str(value))]


def main() -> None:
    own = argparse.ArgumentParser(description=__doc__)
    own.add_argument("--weights", type=Path, default=WEIGHTS)
    own.add_argument("--serve-config", default="/etc/octet/serve.yaml")
    own.add_argument("--input-len", type=int, default=256)
    own.add_argument("--output-len", type=int, default=128)
    own.add_argument("--num-prompts", type=int, default=200)
    given = own.parse_args()
    parser = FlexibleArgumentParser(allow_abbrev=False)
    throughput.add_cli_args(parser)
    options = parser.load_config_file(given.serve_config)  # those of the HTTP server are not known here
    throughput.main(parser.parse_known_args([*options, *words(given)])[0])


if __name__ == "__main__":
    main()
