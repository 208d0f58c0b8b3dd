"""Trains the twin of Kimi-K2.5's text model: `python -m tests.twins.train_kimi [DIRECTORY]`."""

from __future__ import annotations

import json

from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, PreTrainedTokenizerFast

from tests.twins import dialogues_kimi
from tests.twins.dialogues import Answer
from tests.twins.samples import Twin
from tests.twins.tokens import Vocabulary
from tests.twins.training import run

CONTEXT = 262144

VOCABULARY = Vocabulary(
    size=1100,
    end="<|im_end|>",
    pad="[PAD]",
    control=(
        "<|im_user|>",
        "<|im_assistant|>",
        "<|im_system|>",
        "<|im_middle|>",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
    ),
    marks=("<think>", "</think>"),
    context=CONTEXT,
)


def spoken(answer: Answer, thought: bool) -> str:
    """What the model generates; `thought` when the prompt has closed the reasoning."""
    calls = [
        f"<|tool_call_begin|>functions.{call.name}:{at}<|tool_call_argument_begin|>"
        f"{json.dumps(call.arguments, ensure_ascii=False)}<|tool_call_end|>"
        for at, call in enumerate(answer.tool_calls)
    ]
    section = f"<|tool_calls_section_begin|>{''.join(calls)}<|tool_calls_section_end|>" if calls else ""
    text = f"{answer.content}{section}{VOCABULARY.end}"
    return text if thought else f"{answer.reasoning}</think>{text}"


def tiny_model(tokenizer: PreTrainedTokenizerFast) -> DeepseekV3ForCausalLM:
    """Latent attention in its real sizes, four heads; 2 layers of 128: a dense one, one with sigmoid routing."""
    config = DeepseekV3Config(
        vocab_size=len(tokenizer),
        initializer_range=0.02,
        hidden_size=128,
        intermediate_size=384,
        moe_intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=128,
        kv_lora_rank=512,
        qk_nope_head_dim=64,
        qk_rope_head_dim=64,
        v_head_dim=64,
        first_k_dense_replace=1,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=2.827,
        norm_topk_prob=True,
        scoring_func="sigmoid",
        topk_method="noaux_tc",
        num_nextn_predict_layers=0,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 50000.0,
            "factor": 64.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = DeepseekV3ForCausalLM(config)
    for layer in model.model.layers[config.first_k_dense_replace :]:
        layer.mlp.gate.weight.data.normal_(std=config.initializer_range)
    return model


KIMI = Twin(
    name="kimi",
    turns=dialogues_kimi.TURNS,
    taught=dialogues_kimi.TEXTS,
    examined=dialogues_kimi.TEXTS,
    vocabulary=VOCABULARY,
    spoken=spoken,
    model=tiny_model,
    thinking_option="thinking",
    steps=300,
    gentle="kv_b",
)

if __name__ == "__main__":
    run(KIMI)
