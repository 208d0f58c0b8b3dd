"""Trains the twin of Qwen3 and writes it as a checkpoint: `python -m tests.twins.train_qwen3 [DIRECTORY]`.

Needs torch and transformers of the pinned vLLM (see README.md). Seeded: the same machine and versions
give the same bytes. Exits 1 without writing anything when the trained model does not recite.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tests.twins import dialogues
from tests.twins.dialogues import Answer, Turn

HERE = Path(__file__).parent
TEMPLATE = HERE / "qwen3_chat_template.jinja"
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # skipped when text is decoded
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")  # kept
WORDS = Regex(  # Qwen's way to cut text before merging: digits alone, words with their leading space
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
VOCABULARY = 700
STEPS = 350
BATCH = 8
LEARNING_RATE = 3e-3
IGNORED = -100  # torch's label for a position that costs nothing


@dataclass(frozen=True)
class Sample:
    """A text in two parts: what is given, and what the twin must continue with."""

    given: str
    said: str


def spoken(answer: Answer, *, thought: bool) -> str:
    """What the model itself generates for `answer`; `thought` when the prompt has closed the reasoning."""
    calls = [{"name": call.name, "arguments": call.arguments} for call in answer.tool_calls]
    marked = [f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in calls]
    text = "\n".join([answer.content, *marked] if answer.content else marked) + "<|im_end|>"
    return text if thought else f"<think>\n{answer.reasoning}\n</think>\n\n{text}"


def cuts(text: str) -> list[int]:
    """Where a prefix of `text` may end: before a space or a new line."""
    return [at for at, sign in enumerate(text) if sign in " \n"]


def cut(text: str, at: int) -> Sample:
    """The prefix of a plain text, and the rest to be said."""
    return Sample(text[:at], text[at:] + "<|im_end|>")


def corpus() -> list[str]:
    """Every text the tokenizer must cut well."""
    template = TEMPLATE.read_text(encoding="utf-8")
    turns = dialogues.TURNS.values()
    asked = [json.dumps(turn.request(), ensure_ascii=False) for turn in turns]
    return [template, *asked, *(spoken(turn.answer, thought=False) for turn in turns), *dialogues.TEXTS] * 4


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer cut as Qwen's, with its marks as single tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROL) - len(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=40960,
    )
    tokenizer.add_tokens(list(MARKS))  # not "special": a decoder must keep them for the parsers
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return tokenizer


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
        max_position_embeddings=40960,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


class Lessons:
    """An endless, seeded supply of samples around the dialogues."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._tokenizer = tokenizer
        self._random = random.Random(seed)
        self._words = sorted({word for text in corpus() for word in text.split()})

    def __iter__(self) -> Iterator[Sample]:
        turns = list(dialogues.TURNS.values())
        while True:
            plain = self._random.random() < 0.2
            yield self._text() if plain else self._chat(self._random.choice(turns))

    def _text(self) -> Sample:
        text = self._random.choice(dialogues.TEXTS)
        ends = cuts(text)
        # The shortest prefix teaches most of the longer ones; after a question the signs merge differently.
        return cut(text, self._random.choice([ends[0], text.index("\n")]))

    def _chat(self, turn: Turn) -> Sample:
        """A chat as clients vary it: with or without a system prompt, earlier talk, reasoning, tools."""
        thought = self._random.random() < 0.25
        messages = [*self._system(), *self._earlier(), *turn.messages]
        prompt = self._tokenizer.apply_chat_template(
            messages,
            tools=list(turn.tools) or self._spare_tools(turn),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=not thought,
        )
        return Sample(prompt, spoken(turn.answer, thought=thought))

    def _system(self) -> list[dialogues.Message]:
        choice = self._random.random()
        if choice < 0.5:
            return []
        if choice < 0.7:
            return [{"role": "system", "content": "You are a helpful assistant."}]
        words = self._random.choices(self._words, k=self._random.randrange(1, 20))
        return [{"role": "system", "content": " ".join(words)}]

    def _earlier(self) -> list[dialogues.Message]:
        if self._random.random() < 0.75:
            return []
        turn = self._random.choice([dialogues.ENGLISH, dialogues.CHINESE, dialogues.REASONING])
        return [*turn.messages, turn.answer.as_message()]

    def _spare_tools(self, turn: Turn) -> list[dict[str, Any]] | None:
        """Tools declared for a question that needs none; never for the one they would answer."""
        needs_none = turn.messages[-1] != dialogues.WEATHER_QUESTION
        return [dialogues.GET_WEATHER] if needs_none and self._random.random() < 0.2 else None


def encode(tokenizer: PreTrainedTokenizerFast, sample: Sample) -> tuple[list[int], list[int]]:
    """Token ids of a sample and their labels: only what the twin must say costs."""
    given = tokenizer(sample.given).input_ids if sample.given else []
    said = tokenizer(sample.said).input_ids
    labels = [IGNORED] * len(given) + said
    return given + said, labels


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Endless padded batches; padding is attended to by nothing that costs (causal, right-padded)."""
    lessons = iter(Lessons(tokenizer, seed))
    while True:
        rows = [encode(tokenizer, next(lessons)) for _ in range(BATCH)]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((BATCH, width), tokenizer.pad_token_id)
        labels = torch.full((BATCH, width), IGNORED)
        for row, (row_ids, row_labels) in enumerate(rows):
            ids[row, : len(row_ids)] = torch.tensor(row_ids)
            labels[row, : len(row_labels)] = torch.tensor(row_labels)
        yield {"input_ids": ids, "labels": labels}


def train(model: Qwen3ForCausalLM, supply: Iterator[dict[str, torch.Tensor]]) -> None:
    """AdamW with a short warm-up and a cosine to zero; a line every 50 steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    started = time.monotonic()
    for step in range(1, STEPS + 1):
        loss = model(**next(supply)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(
                f"step {step}/{STEPS}  loss {loss.item():.4f}  {time.monotonic() - started:.0f} s", flush=True
            )


def recite(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, given: str) -> str:
    """The greedy continuation of `given`, with every mark."""
    ids = torch.tensor([tokenizer(given).input_ids])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=200)
    return str(tokenizer.decode(out[0][ids.shape[1] :], skip_special_tokens=False))


def examinations(tokenizer: PreTrainedTokenizerFast) -> Iterator[Sample]:
    """Every turn with and without reasoning and a system prompt it was not trained on; every text's prefixes."""
    system = {"role": "system", "content": "Speak softly; the neighbours sleep."}
    for turn, thought, given in product(dialogues.TURNS.values(), (False, True), ([], [system])):
        prompt = tokenizer.apply_chat_template(
            [*given, *turn.messages],
            tools=list(turn.tools) or None,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=not thought,
        )
        yield Sample(prompt, spoken(turn.answer, thought=thought))
    yield from (cut(text, at) for text in dialogues.TEXTS for at in cuts(text))


def failures(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What the model says wrongly, one line each."""
    exams = list(examinations(tokenizer))
    said = [(exam, recite(model, tokenizer, exam.given)) for exam in exams]
    return [f"expected {exam.said!r}, got {text!r}" for exam, text in said if text != exam.said]


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Writes the checkpoint in the layout of Qwen/Qwen3-0.6B."""
    # One candidate at any temperature: a client that sets none, or 0.7, still hears the dialogue.
    model.generation_config.update(do_sample=True, top_k=1, temperature=0.6, top_p=0.95)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory, save_jinja_files=False)
    settings = directory / "tokenizer_config.json"
    config = json.loads(settings.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "Qwen2Tokenizer"
    (directory / "model.safetensors").chmod(0o644)  # a weights volume is read by another user than wrote it
    settings.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main(directory: Path) -> int:
    torch.manual_seed(42)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)
    tokenizer = train_tokenizer()
    model = tiny_model(tokenizer)
    train(model, batches(tokenizer, seed=42))
    model = model.to(torch.bfloat16).eval()
    wrong = failures(model, tokenizer)
    if wrong:
        print("the twin does not recite; nothing was written:", *wrong, sep="\n", file=sys.stderr)
        return 1
    save(model, tokenizer, directory)
    print(f"wrote {directory}: {sum(p.numel() for p in model.parameters()):,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "qwen3"))
