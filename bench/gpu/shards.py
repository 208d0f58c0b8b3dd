"""Random weights of a Qwen2 model as real files, so that a start reads from a disk as much as of the model's own.

usage: python -m bench.gpu.shards FOLDER     FOLDER has the model's config.json; made on the GPU, in seconds

Shards have the size of those on the hub. Matrices are drawn from a normal distribution and norms are ones, as in a
model before its training: no value overflows, and each prompt has an answer of its own.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SHARD_BYTES = 8_700_000_000
BYTES_EACH = 2  # BF16
SPREAD = 0.02  # the standard deviation that models of this kind begin with

Shape = tuple[int, ...]


def tensors(config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Every tensor of the model by name, in the order of its files."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    kv = hidden // heads * kv_heads
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for at in range(config["num_hidden_layers"]):
        layer = f"model.layers.{at}"
        for name, rows in (("q_proj", hidden), ("k_proj", kv), ("v_proj", kv)):
            yield f"{layer}.self_attn.{name}.bias", (rows,)
            yield f"{layer}.self_attn.{name}.weight", (rows, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, hidden)
        yield f"{layer}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.up_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.down_proj.weight", (hidden, inner)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocabulary, hidden)


def size(shape: Shape) -> int:
    """In bytes."""
    count = BYTES_EACH
    for length in shape:
        count *= length
    return count


def shards(config: Mapping[str, Any], most: int = SHARD_BYTES) -> list[dict[str, Shape]]:
    """The tensors of each file."""
    found: list[dict[str, Shape]] = [{}]
    filled = 0
    for name, shape in tensors(config):
        if filled and filled + size(shape) > most:
            found.append({})
            filled = 0
        found[-1][name] = shape
        filled += size(shape)
    return found


def index(files: Mapping[str, Mapping[str, Shape]]) -> dict[str, Any]:
    """What model.safetensors.index.json says of them."""
    total = sum(size(shape) for part in files.values() for shape in part.values())
    return {
        "metadata": {"total_size": total},
        "weight_map": {name: file for file, part in files.items() for name in part},
    }


def named(parts: list[dict[str, Shape]]) -> dict[str, dict[str, Shape]]:
    """The files by the names that the hub gives them."""
    count = len(parts)
    return {f"model-{at:05}-of-{count:06}.safetensors": part for at, part in enumerate(parts, 1)}


def write(folder: Path) -> None:
    """Makes each file on the GPU and writes it."""
    import torch  # the GPU host's
    from safetensors.torch import save_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    files = named(shards(config))
    made = torch.Generator("cuda").manual_seed(7)
    for file, part in files.items():
        content = {}
        for name, shape in part.items():
            value = torch.empty(shape, dtype=torch.bfloat16, device="cuda")
            is_norm = name.endswith("norm.weight")
            value.fill_(1) if is_norm else value.normal_(0, SPREAD, generator=made)
            content[name] = value.cpu()
        save_file(content, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index(files)), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
