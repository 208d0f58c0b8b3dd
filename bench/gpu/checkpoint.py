"""A checkpoint without weights in a model's real shape: its configuration, and a tokenizer with as many tokens."""

import json
from pathlib import Path
from typing import Any

from bench.gpu.rows import STEP_BF16, STEP_FP8, Row

SHAPES = Path(__file__).parent / "shapes"
TWINS = Path(__file__).resolve().parents[2] / "tests/twins"
SHAPE_OF = {STEP_FP8: "step3p5", STEP_BF16: "step3p5"}
TWIN_OF = {"deepseek-r1-distill-qwen-7b": "r1", STEP_FP8: "step", STEP_BF16: "step"}
BLOCK = [128, 128]
# The layers that the FP8 checkpoint leaves in BF16: all but the routed experts.
UNQUANTISED = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "g_proj")
DENSE = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")


def write(folder: Path, row: Row) -> None:
    """Writes the row's checkpoint into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    twin = TWINS / TWIN_OF[row.slug]
    shape = shape_of(row)
    tokens = {name: value for name, value in read(twin / "config.json").items() if name.endswith("_token_id")}
    put(folder / "config.json", shape | {name: value for name, value in tokens.items() if value is not None})
    put(folder / "tokenizer.json", filled(read(twin / "tokenizer.json"), shape["vocab_size"]))
    for name in ("tokenizer_config.json", "generation_config.json"):
        put(folder / name, read(twin / name))


def shape_of(row: Row) -> dict[str, Any]:
    """The model's configuration, cut to the row's layers, with its differences."""
    shape = read(SHAPES / f"{SHAPE_OF.get(row.slug, row.slug)}.json")
    if row.layers is not None:
        shape = cut(shape, row.layers)
    quantised = {"quantization_config": block_fp8(shape)} if row.slug == STEP_FP8 else {}
    return shape | quantised | dict(row.config)


def cut(shape: dict[str, Any], layers: int) -> dict[str, Any]:
    """The first `layers` of the model; the draft's own layers stay, behind them."""
    whole, extra = shape["num_hidden_layers"], shape.get("num_nextn_predict_layers", 0)
    kept: dict[str, Any] = {name: value[:layers] + value[whole:whole + extra] for name, value in shape.items()
            if isinstance(value, list) and len(value) == whole + extra}  # fmt: skip
    if "moe_layers_enum" in shape:
        numbers = [at for at in shape["moe_layers_enum"].split(",") if int(at) < layers]
        kept["moe_layers_enum"] = ",".join(numbers)
    return shape | kept | {"num_hidden_layers": layers}


def block_fp8(shape: dict[str, Any]) -> dict[str, Any]:
    """Experts in FP8, in blocks; everything else by its full name as it is."""
    return {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": BLOCK,
        "modules_to_not_convert": [
            "lm_head",
            *(name for at in range(layers_in(shape)) for name in kept_in(at)),
        ],
    }


def layers_in(shape: dict[str, Any]) -> int:
    return int(shape["num_hidden_layers"]) + int(shape.get("num_nextn_predict_layers", 0))


def kept_in(layer: int) -> list[str]:
    """The linear layers of one block that stay in BF16, under every name that vLLM has for them."""
    block = f"model.layers.{layer}"
    attention = [f"{block}.self_attn.{name}" for name in UNQUANTISED]
    parts = ("mlp", "share_expert", "moe.share_expert")
    return [*attention, f"{block}.moe.gate", *(f"{block}.{part}.{name}" for part in parts for name in DENSE)]


def filled(tokenizer: dict[str, Any], size: int) -> dict[str, Any]:
    """A word for every token up to `size`: random weights choose any, and a stream shall have text in each chunk."""
    model = tokenizer["model"]
    taken = {*model["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])}
    words = {f"\u0120w{at}": at for at in range(size) if at not in taken}
    return tokenizer | {"model": model | {"vocab": model["vocab"] | words}}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def put(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
