"""Trains the twin of Step-3.5-Flash: `python -m tests.twins.train_step [DIRECTORY]`."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from tests.twins import dialogues_step
from tests.twins.dialogues import Answer, ToolCall
from tests.twins.samples import Twin
from tests.twins.step3p5 import Step3p5ForCausalLM
from tests.twins.tokens import Vocabulary
from tests.twins.training import run

CONTEXT = 262144

VOCABULARY = Vocabulary(
    size=800,
    begin="<｜begin▁of▁sentence｜>",
    end="<|im_end|>",
    pad="<|endoftext|>",
    control=("<|im_start|>",),
    marks=("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    context=CONTEXT,
)


def marked(call: ToolCall) -> str:
    """A call as Step writes it: XML, each argument on lines of its own."""
    arguments = "".join(
        f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in call.arguments.items()
    )
    return f"<tool_call>\n<function={call.name}>\n{arguments}</function>\n</tool_call>"


def spoken(answer: Answer, _thought: bool) -> str:
    """What the model generates after the prompt has opened the reasoning."""
    text = "\n".join([*filter(None, [answer.content]), *map(marked, answer.tool_calls)])
    return f"{answer.reasoning}\n</think>\n{text}{VOCABULARY.end}"


def tiny_model(tokenizer: PreTrainedTokenizerFast) -> Step3p5ForCausalLM:
    """3 layers of 128 (full and dense, sliding and sparse, full and sparse) and one draft layer."""
    full, sliding = "full_attention", "sliding_attention"
    config = {
        "architectures": ["Step3p5ForCausalLM"],
        "model_type": "step3p5",
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_nextn_predict_layers": 1,
        "layer_types": [full, sliding, full, sliding],  # the draft layers' too, as in the real file
        "num_attention_heads": 4,
        "num_attention_groups": 2,
        "head_dim": 32,
        "attention_other_setting": {
            "attention_type": sliding,
            "num_attention_heads": 6,
            "num_attention_groups": 2,
            "head_dim": 32,
            "true_head_dim": 32,
        },
        "sliding_window": 512,
        "use_head_wise_attn_gate": True,
        "rope_theta": [5e6, 1e4, 5e6, 1e4],
        "partial_rotary_factors": [0.5, 1.0, 0.5, 1.0],
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 2.0,
            "original_max_position_embeddings": 131072,
            "low_freq_factor": 1.0,
            "high_freq_factor": 32.0,
        },
        "yarn_only_types": [full],
        "moe_layers_enum": "1,2",
        "moe_num_experts": 8,
        "moe_top_k": 2,
        "moe_intermediate_size": 64,
        "share_expert_dim": 64,
        "moe_router_activation": "softmax",
        "moe_router_scaling_factor": 1.0,
        "norm_expert_weight": True,
        "use_moe_router_bias": True,
        "need_fp32_gate": True,
        "swiglu_limits": [0.0] * 4,
        "swiglu_limits_shared": [0.0] * 4,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": CONTEXT,
        "max_seq_len": CONTEXT,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return Step3p5ForCausalLM(config)


STEP = Twin(
    name="step",
    turns=dialogues_step.TURNS,
    taught=dialogues_step.TEXTS,
    examined=dialogues_step.TEXTS,
    vocabulary=VOCABULARY,
    spoken=spoken,
    model=tiny_model,
)

if __name__ == "__main__":
    run(STEP)
