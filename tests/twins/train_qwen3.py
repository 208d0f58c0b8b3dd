"""Trains the twin of Qwen3: `python -m tests.twins.train_qwen3 [DIRECTORY]`."""

from __future__ import annotations

import json

from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tests.twins import dialogues
from tests.twins.dialogues import Answer, Text
from tests.twins.samples import Twin
from tests.twins.tokens import Vocabulary
from tests.twins.training import run

CONTEXT = 40960

VOCABULARY = Vocabulary(
    size=700,
    end="<|im_end|>",
    pad="<|endoftext|>",
    control=("<|im_start|>",),
    marks=("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    context=CONTEXT,
    tokenizer_class="Qwen2Tokenizer",
)


def spoken(answer: Answer, thought: bool) -> str:
    """What the model itself generates for `answer`; `thought` when the prompt has closed the reasoning."""
    calls = [{"name": call.name, "arguments": call.arguments} for call in answer.tool_calls]
    marked = [f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in calls]
    text = "\n".join([answer.content, *marked] if answer.content else marked) + VOCABULARY.end
    return text if thought else f"<think>\n{answer.reasoning}\n</think>\n\n{text}"


def cuts(text: str) -> list[Text]:
    """The prefixes of `text` that end before a space or a new line, each with the rest to be said."""
    return [Text(text[:at], text[at:]) for at, sign in enumerate(text) if sign in " \n"]


def taught(text: str) -> list[Text]:
    """The shortest prefix teaches most of the longer ones; after the question signs merge differently."""
    return [cuts(text)[0], next(cut for cut in cuts(text) if cut.said.startswith("\n"))]


def tiny_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Qwen3's architecture (grouped heads, normalised queries and keys, tied embeddings), 3 layers of 128."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


QWEN3 = Twin(
    name="qwen3",
    turns=dialogues.TURNS,
    taught=tuple(cut for text in dialogues.TEXTS for cut in taught(text)),
    examined=tuple(cut for text in dialogues.TEXTS for cut in cuts(text)),
    vocabulary=VOCABULARY,
    spoken=spoken,
    model=tiny_model,
    thinking_option="enable_thinking",
)

if __name__ == "__main__":
    run(QWEN3)
