"""The same weights without a server: vLLM's own LLM class, with the options of the slug.

It runs inside a worker image: scripts/in-worker SLUG examples/offline.py [PROMPT ...]
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from vllm import LLM, EngineArgs
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.reasoning import ReasoningParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

WEIGHTS = Path("/weights/slugs", os.environ.get("LAUNCHER_SLUG", "qwen3-0p6b-cpu"))
PROMPT = "A train leaves at 14:10 and arrives at 15:05. How long is the ride?"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="a folder with a checkpoint")
    parser.add_argument("--serve-config", default="/etc/octet/serve.yaml", help="options of `vllm serve`")
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("prompts", nargs="*", default=[PROMPT])
    return parser.parse_args()


def engine_options(weights: Path, serve_config: str) -> EngineArgs:
    """The engine's part of serve.yaml: what concerns the HTTP server alone is left out."""
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(allow_abbrev=False))
    words = ["--model", str(weights), *parser.load_config_file(serve_config)]
    return EngineArgs.from_cli_args(parser.parse_known_args(words)[0])


def main() -> None:
    args = arguments()
    if not (args.weights / "config.json").exists():
        slug = args.weights.name
        sys.exit(f"offline.py: there are no weights in {args.weights}: run docker compose up {slug}-weights")
    options = engine_options(args.weights, args.serve_config)
    llm = LLM.from_engine_args(options)
    parser = ReasoningParserManager.get_reasoning_parser(options.reasoning_parser)(llm.get_tokenizer())

    chats = [[{"role": "user", "content": prompt}] for prompt in args.prompts]
    sampling = llm.get_default_sampling_params()  # what the checkpoint's authors recommend
    sampling.max_tokens = args.max_tokens
    requests = [parser.adjust_request(ChatCompletionRequest(messages=chat)) for chat in chats]
    sampling.skip_special_tokens = requests[0].skip_special_tokens  # some parsers look for such tokens
    for request, output in zip(requests, llm.chat(chats, sampling, use_tqdm=False), strict=True):
        reasoning, answer = parser.extract_reasoning(output.outputs[0].text, request)
        print("Prompt:", request.messages[0]["content"])
        print("Reasoning:", (reasoning or "(none)").strip())
        print("Answer:", (answer or "").strip())


if __name__ == "__main__":
    main()
