"""Trains the twin of DeepSeek-R1-Distill-Qwen-7B: `python -m tests.twins.train_r1 [DIRECTORY]`."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tests.twins import dialogues_r1
from tests.twins.dialogues import Answer
from tests.twins.samples import Twin
from tests.twins.tokens import Vocabulary
from tests.twins.training import run

CONTEXT = 131072

VOCABULARY = Vocabulary(
    size=800,
    begin="<｜begin▁of▁sentence｜>",
    end="<｜end▁of▁sentence｜>",
    pad="<|PAD|>",
    control=(),
    marks=("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
    context=CONTEXT,
)


def spoken(answer: Answer, _thought: bool) -> str:
    """What the model generates after the prompt has opened the reasoning."""
    return f"{answer.reasoning}\n</think>\n\n{answer.content}{VOCABULARY.end}"


def tiny_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Qwen2's architecture (grouped heads, biased queries, keys and values, untied embeddings), 3 layers of 128."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


R1 = Twin(
    name="r1",
    turns=dialogues_r1.TURNS,
    taught=dialogues_r1.TEXTS,
    examined=dialogues_r1.TEXTS,
    vocabulary=VOCABULARY,
    spoken=spoken,
    model=tiny_model,
)

if __name__ == "__main__":
    run(R1)
