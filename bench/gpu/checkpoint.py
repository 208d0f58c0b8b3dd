"""A checkpoint without weights in a model's real shape: its configuration, and a tokenizer with as many tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

from bench.gpu.rows import KIMI, R1, STEP_3P7, STEP_BF16, STEP_FP8, Row

SHAPES = Path(__file__).parent / "shapes"
TWINS = Path(__file__).resolve().parents[2] / "tests/twins"
SHAPE_OF = {STEP_FP8: "step3p5", STEP_BF16: "step3p5", STEP_3P7: "step3p7", KIMI: "kimi-k2p5"}
TWIN_OF = {R1: "r1", STEP_FP8: "step", STEP_BF16: "step", STEP_3P7: "step", KIMI: "kimi"}
LANGUAGE_MODEL = {"step3p7": "step3p5"}  # another shape that is part of this one
# What stands for an image in a prompt, and what goes around it.
MEDIA_TOKENS = {
    STEP_3P7: {
        "<im_patch>": 128001, "<im_start>": 128002, "<im_end>": 128003, "<patch_start>": 128004, "<patch_end>": 128005,
        "<patch_newline>": 128006,
    },
    KIMI: {
        "<|media_begin|>": 163602, "<|media_content|>": 163603, "<|media_end|>": 163604, "<|media_pad|>": 163605,
    },
}  # fmt: skip
BLOCK = [128, 128]
# The layers that the FP8 checkpoint leaves in BF16: all but the routed experts.
UNQUANTISED = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "g_proj")
DENSE = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")


def write(folder: Path, row: Row) -> None:
    """Writes the row's checkpoint into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    twin, name = TWINS / TWIN_OF[row.slug], shape_name(row)
    config = named_tokens(shape_of(row), read(twin / "config.json"))
    put(folder / "config.json", config)
    tokenizer = with_media(read(twin / "tokenizer.json"), MEDIA_TOKENS.get(row.slug, {}))
    put(folder / "tokenizer.json", filled(tokenizer, language_model(config)["vocab_size"]))
    for file in ("tokenizer_config.json", "generation_config.json"):
        put(folder / file, read(twin / file))
    if (SHAPES / name).is_dir():
        shutil.copytree(SHAPES / name, folder, dirs_exist_ok=True)


def shape_name(row: Row) -> str:
    return SHAPE_OF.get(row.slug, row.slug)


def shape_of(row: Row) -> dict[str, Any]:
    """The model's configuration, cut to the row's layers, with its differences."""
    name = shape_name(row)
    shape = read(SHAPES / f"{name}.json")
    if name in LANGUAGE_MODEL:
        shape["text_config"] = read(SHAPES / f"{LANGUAGE_MODEL[name]}.json")
    if row.layers is not None:
        language_model(shape).update(cut(language_model(shape), row.layers))
    if row.slug in (STEP_FP8, STEP_3P7):
        shape["quantization_config"] = block_fp8(language_model(shape), shape.get("vision_config", {}))
    return shape | dict(row.config)


def language_model(shape: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that is the language model's."""
    part: dict[str, Any] = shape.get("text_config", shape)
    return part


def named_tokens(shape: dict[str, Any], twin: dict[str, Any]) -> dict[str, Any]:
    """With the special tokens of the twin, whose tokenizer it is."""
    tokens = {key: value for key, value in twin.items() if key.endswith("_token_id") and value is not None}
    language_model(shape).update(tokens)
    return shape | tokens


def cut(shape: dict[str, Any], layers: int) -> dict[str, Any]:
    """The first `layers` of the model; the draft's own layers stay, behind them."""
    whole, extra = shape["num_hidden_layers"], shape.get("num_nextn_predict_layers", 0)
    kept: dict[str, Any] = {name: value[:layers] + value[whole:whole + extra] for name, value in shape.items()
            if isinstance(value, list) and len(value) == whole + extra}  # fmt: skip
    if "moe_layers_enum" in shape:
        numbers = [at for at in shape["moe_layers_enum"].split(",") if int(at) < layers]
        kept["moe_layers_enum"] = ",".join(numbers)
    return shape | kept | {"num_hidden_layers": layers}


def block_fp8(shape: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    """Experts in FP8, in blocks; everything else by its full name as it is."""
    images = [name for at in range(vision.get("layers", 0)) for name in kept_in_image_layer(at)]
    return {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": BLOCK,
        "modules_to_not_convert": [
            "lm_head",
            *(name for at in range(layers_in(shape)) for name in kept_in(f"model.layers.{at}")),
            *(name for at in drafts_in(shape) for name in kept_in(f"model.layers.{at}.mtp_block")),
            *images,
            "vit_large_projector",
        ],
    }


def layers_in(shape: dict[str, Any]) -> int:
    return int(shape["num_hidden_layers"]) + int(shape.get("num_nextn_predict_layers", 0))


def drafts_in(shape: dict[str, Any]) -> range:
    return range(int(shape["num_hidden_layers"]), layers_in(shape))


def kept_in(block: str) -> list[str]:
    """The linear layers of one block that stay in BF16, under every name that vLLM has for them."""
    attention = [f"{block}.self_attn.{name}" for name in UNQUANTISED]
    parts = ("mlp", "share_expert", "moe.share_expert")
    return [*attention, f"{block}.moe.gate", *(f"{block}.{part}.{name}" for part in parts for name in DENSE)]


def kept_in_image_layer(at: int) -> list[str]:
    block = f"vision_model.transformer.resblocks.{at}"
    return [f"{block}.{name}" for name in ("attn.qkv_proj", "attn.out_proj", "mlp.fc1", "mlp.fc2")]


def with_media(tokenizer: dict[str, Any], tokens: dict[str, int]) -> dict[str, Any]:
    """With special tokens of these ids."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": at, "content": word} | plain for word, at in tokens.items()]
    return tokenizer | {"added_tokens": tokenizer["added_tokens"] + added}


def filled(tokenizer: dict[str, Any], size: int) -> dict[str, Any]:
    """A word for every token up to `size`: random weights choose any, and a stream shall have text in each chunk.

    Special tokens are words too: the library gives those that are none other ids.
    """
    model = tokenizer["model"]
    vocabulary = model["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    taken = set(vocabulary.values())
    words = {f"\u0120w{at}": at for at in range(size) if at not in taken}
    return tokenizer | {"model": model | {"vocab": vocabulary | words}}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def put(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
