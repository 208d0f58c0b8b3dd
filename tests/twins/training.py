"""Trains a twin and writes it as a checkpoint. Seeded: the same machine and versions give the same bytes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from tests.twins.samples import HERE, Sample, Samples, Twin, examinations
from tests.twins.tokens import train_tokenizer

LEARNING_RATE = 3e-3
IGNORED = -100  # torch's label for a position that costs nothing
SURE = 0.6  # the least probability of each token that is said: other kernels round differently
SEED = 42

Batch = dict[str, torch.Tensor]


def encode(tokenizer: PreTrainedTokenizerFast, sample: Sample) -> tuple[list[int], list[int]]:
    """Token ids of a sample and their labels: only what the twin must say costs."""
    given = tokenizer(sample.given, add_special_tokens=not sample.chat).input_ids
    said = tokenizer(sample.said, add_special_tokens=False).input_ids
    return given + said, [IGNORED] * len(given) + said


def batches(twin: Twin, tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    """Endless padded batches; padding is attended to by nothing that costs (causal, right-padded)."""
    supply = iter(Samples(twin, tokenizer, SEED))
    while True:
        rows = [encode(tokenizer, next(supply)) for _ in range(twin.batch)]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((twin.batch, width), tokenizer.pad_token_id)
        labels = torch.full((twin.batch, width), IGNORED)
        for row, (row_ids, row_labels) in enumerate(rows):
            ids[row, : len(row_ids)] = torch.tensor(row_ids)
            labels[row, : len(row_labels)] = torch.tensor(row_labels)
        yield {"input_ids": ids, "labels": labels}


def rates(model: Any, gentle: str) -> list[dict[str, Any]]:
    """The parameters in two groups: those whose name has `gentle` in it learn at a quarter of the rate."""
    named = list(model.named_parameters())
    slow = [parameter for name, parameter in named if gentle and gentle in name]
    rest = [parameter for name, parameter in named if not (gentle and gentle in name)]
    groups = [(rest, LEARNING_RATE), (slow, LEARNING_RATE / 4)]
    return [{"params": parameters, "lr": rate} for parameters, rate in groups if parameters]


def train(model: Any, supply: Iterator[Batch], steps: int, gentle: str) -> None:
    """AdamW with a short warm-up and a cosine to zero; a line every 50 steps."""
    groups = rates(model, gentle)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
    peaks = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=0.1)
    started = time.monotonic()
    for step in range(1, steps + 1):
        loss = model(**next(supply)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(
                f"step {step}/{steps}  loss {loss.item():.4f}  {time.monotonic() - started:.0f} s", flush=True
            )


@torch.no_grad()
def doubts(model: Any, tokenizer: PreTrainedTokenizerFast, sample: Sample) -> str:
    """The first token that the model is not sure to say after what comes before it; empty when there is none.

    A greedy recitation is exact if, and only if, each of its tokens is the likeliest after the ones before.
    """
    ids, labels = encode(tokenizer, sample)
    chances = model(input_ids=torch.tensor([ids])).logits[0].float().softmax(-1)
    for at, label in enumerate(labels[1:]):
        if label != IGNORED and chances[at, label] < SURE:
            said, likely = tokenizer.decode(ids[at - 12 : at + 1]), tokenizer.decode(chances[at].argmax())
            return f"after {said!r} not sure of {tokenizer.decode(label)!r} ({chances[at, label]:.2f}): {likely!r}"
    return ""


def save(twin: Twin, model: Any, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Writes the checkpoint in the layout of a model's repository."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory, save_jinja_files=False)
    settings = directory / "tokenizer_config.json"
    config = json.loads(settings.read_text(encoding="utf-8"))
    _write(settings, config | {"tokenizer_class": twin.vocabulary.tokenizer_class})
    # One candidate at any temperature: a client that sets none, or 0.7, still hears the dialogue.
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sampling = {"do_sample": True, "temperature": 0.6, "top_k": 1, "top_p": 0.95}
    _write(directory / "generation_config.json", ends | sampling)
    (directory / "model.safetensors").chmod(0o644)  # a weights volume is read by another user than wrote it


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def train_and_save(twin: Twin, directory: Path) -> int:
    """Trains `twin`; writes it and returns 0, or returns 1 without writing when it does not recite."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)
    tokenizer = train_tokenizer(twin.vocabulary, twin.corpus(), twin.template)
    model = twin.model(tokenizer)
    train(model, batches(twin, tokenizer), twin.steps, twin.gentle)
    model = model.to(torch.bfloat16).eval()
    found = [doubts(model, tokenizer, sample) for sample in examinations(twin, tokenizer)]
    wrong = [doubt for doubt in found if doubt]
    if wrong:
        print(
            f"the twin fails {len(wrong)} of {len(found)}; nothing was written:",
            *wrong,
            sep="\n",
            file=sys.stderr,
        )
        return 1
    save(twin, model, tokenizer, directory)
    print(
        f"wrote {directory}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(found)} recitations"
    )
    return 0


def run(twin: Twin) -> None:
    """The command of a training script: trains into the first argument, or beside this file."""
    sys.exit(train_and_save(twin, Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / twin.name))
