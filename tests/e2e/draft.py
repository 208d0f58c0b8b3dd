"""Generates with a tiny random Step-3.5 and the draft that step3p5-bf16-mtp asks for. Runs in a worker image.

usage: draft.py CHECKPOINT SERVE_YAML     prints {"tokens": ..., "drafts": ...}: how many were generated, and guessed at
"""

import json
import sys

import yaml
from vllm import LLM, SamplingParams

TOKENS = 24


def main(checkpoint: str, serve: str) -> None:
    with open(serve) as file:
        draft = json.loads(yaml.safe_load(file)["speculative-config"])
    llm = LLM(
        checkpoint,
        load_format="dummy",
        speculative_config=draft,
        max_model_len=256,
        max_num_seqs=2,
        enforce_eager=True,
        disable_log_stats=False,
    )
    asked = SamplingParams(max_tokens=TOKENS, ignore_eos=True, temperature=0)
    generated = llm.generate({"prompt_token_ids": [5, 6, 7]}, asked)[0].outputs[0].token_ids
    counted = {metric.name: metric.value for metric in llm.get_metrics() if hasattr(metric, "value")}
    print(json.dumps({"tokens": len(generated), "drafts": counted["vllm:spec_decode_num_drafts"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
