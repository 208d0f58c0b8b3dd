"""Proofs on GPUs: recipes scaled, checkpoints in the model's shape, facts out of a log, a page that is the records'."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import served
from bench.gpu import chat, checkpoint, facts, page, recipe, shards
from bench.gpu.rows import NOT_ATTEMPTED, ROWS, Row, row

LOG = Path(__file__).parent / "vllm-gpu.log"


@pytest.mark.parametrize("one", ROWS, ids=lambda one: one.key)
def test_rows_are_of_slugs_and_scaled_to_their_cards(one: Row) -> None:
    assert (recipe.DOCKER / one.slug / "card.yaml").is_file()
    options = recipe.options(one)
    assert options.get("load-format") == (None if one.files else "dummy")
    assert options.get("tensor-parallel-size", 1) == one.gpus
    assert None not in options.values()


def test_a_row_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(LookupError, match="r1-7b"):
        row("nothing")


def test_options_take_away_and_replace() -> None:
    one = Row(
        "x", "step3p5-fp8", 2, "t", options={"no-enable-flashinfer-autotune": None, "moe-backend": "marlin"}
    )
    options = recipe.options(one)
    assert "no-enable-flashinfer-autotune" not in options
    assert options["moe-backend"] == "marlin"
    assert options["reasoning-parser"] == "step3p5"


def test_the_image_s_environment_with_caches_elsewhere() -> None:
    one = Row("x", "step3p5-fp8", 2, "t", environment={"VLLM_USE_DEEP_GEMM": ""})
    found = recipe.environment(one, Path("/caches"))
    assert found["VLLM_CACHE_ROOT"] == "/caches/vllm"
    assert found["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert not {"VLLM_USE_DEEP_GEMM", "PYTHONPATH", "HOME", "PATH"} & found.keys()


def test_env_lines_continue() -> None:
    assert recipe.image_environment("FROM x\nENV A=1 \\\n    B=2\nENV C=3\nRUN y\n") == {
        "A": "1",
        "B": "2",
        "C": "3",
    }


def test_a_record_differs_by_what_was_other() -> None:
    """From the files as they are today, so that the page tells when they have moved on."""
    plain = Row("x", "step3p5-fp8", 2, "t")
    options = recipe.options(plain) | {"enforce-eager": True}
    del options["moe-backend"]
    environment = recipe.environment(plain, Path("CACHES")) | {"VLLM_SERVER_DEV_MODE": "1"}
    record = {
        "slug": plain.slug,
        "used_gpus": 2,
        "options": options,
        "environment": environment,
        "config": {},
    }
    assert recipe.differences(record) == {"options": {"enforce-eager": True, "moe-backend": None}}


def test_the_command_serves_under_the_slug_s_names() -> None:
    words = recipe.command(Path("/c"), Path("/s.yaml"), "step3p5-fp8", 1)
    assert words[:2] == ["serve", "/c"]
    assert words[-2:] == ["step3p5-flash", "step3p5-fp8"]


def test_a_cut_keeps_the_first_layers_and_the_draft_s() -> None:
    shape = checkpoint.shape_of(Row("x", "step3p5-bf16-mtp", 2, "t", layers=6))
    whole = checkpoint.shape_of(Row("x", "step3p5-bf16-mtp", 2, "t"))
    assert shape["num_hidden_layers"] == 6
    assert shape["layer_types"] == whole["layer_types"][:6] + whole["layer_types"][45:]
    assert shape["moe_layers_enum"] == "3,4,5"


def test_fp8_is_of_the_experts_alone() -> None:
    shape = checkpoint.shape_of(row("fp8"))
    kept = shape["quantization_config"]["modules_to_not_convert"]
    assert "model.layers.44.self_attn.g_proj" in kept
    assert not any("experts" in name for name in kept)
    assert "quantization_config" not in checkpoint.shape_of(row("mtp"))


def test_a_model_with_images_is_cut_and_quantised_in_its_language_model() -> None:
    shape = checkpoint.shape_of(Row("x", "step3p7-flash", 2, "t", layers=6))
    assert shape["text_config"]["num_hidden_layers"] == 6
    kept = shape["quantization_config"]["modules_to_not_convert"]
    assert "model.layers.8.mtp_block.self_attn.qkv_proj" in kept
    assert "vision_model.transformer.resblocks.46.mlp.fc2" in kept
    kimi = checkpoint.shape_of(row("kimi"))["text_config"]
    assert (kimi["num_hidden_layers"], kimi["n_routed_experts"]) == (13, 384)


@pytest.mark.parametrize("key", ["r1-7b", "3p7", "kimi"])
def test_every_token_has_a_word(tmp_path: Path, key: str) -> None:
    one = row(key)
    checkpoint.write(tmp_path, one)
    tokenizer: dict[str, Any] = json.loads((tmp_path / "tokenizer.json").read_text())
    shape = json.loads((tmp_path / "config.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(checkpoint.language_model(shape)["vocab_size"]))
    assert shape["eos_token_id"] in vocabulary.values()
    assert {
        token["content"]: token["id"] for token in tokenizer["added_tokens"]
    }.items() <= vocabulary.items()
    assert checkpoint.MEDIA_TOKENS.get(one.slug, {}).items() <= vocabulary.items()


def test_what_comes_with_a_shape_lies_beside_it(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "3p7", row("3p7"))
    checkpoint.write(tmp_path / "kimi", row("kimi"))
    config = json.loads((tmp_path / "3p7/config.json").read_text())
    module, _, name = config["auto_map"]["AutoConfig"].partition(".")
    assert f"class {name}(" in (tmp_path / "3p7" / f"{module}.py").read_text()
    assert (tmp_path / "kimi/preprocessor_config.json").is_file()


def test_an_image_inside_the_request() -> None:
    """A PNG: its parts with their lengths, its sides, and rows of the one colour."""
    image = chat.png((220, 20, 20))
    parts, at = {}, 8
    while at < len(image):
        [size] = struct.unpack_from(">I", image, at)
        parts[image[at + 4 : at + 8]] = image[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", image, at + 8 + size) == (zlib.crc32(image[at + 4 : at + 8 + size]),)
        at += 12 + size
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBB3x", parts[b"IHDR"]) == (728, 728, 8, 2)
    assert zlib.decompress(parts[b"IDAT"]) == (b"\0" + bytes((220, 20, 20)) * 728) * 728
    [_, shown] = chat.about(b"x")
    assert shown["image_url"] == {"url": "data:image/png;base64,eA=="}


def test_facts_of_a_real_log() -> None:
    """The log of a start on an H200, cut to what speaks of it."""
    found = facts.read(LOG.read_text().splitlines())
    assert found["weights_gib"] == pytest.approx(14.3, abs=0.2)
    assert found["kv_tokens"] is not None
    assert found["attention"] == "FLASH_ATTN"


def test_a_fact_that_is_not_told_is_none() -> None:
    assert set(facts.read(["nothing"]).values()) == {None}


def test_problems_are_lines_that_name_one() -> None:
    lines = ["fine", "WARNING 11-21 an OSError may come", "ValueError: block_n = 128", "fine"]
    assert facts.problems(lines) == ["ValueError: block_n = 128"]


def events(*texts: str) -> list[tuple[float, dict[str, object]]]:
    chunks: list[tuple[float, dict[str, object]]] = [
        (float(at), {"choices": [{"delta": {"reasoning": text}}]}) for at, text in enumerate(texts)
    ]
    return [*chunks, (9.0, {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}})]


def test_a_stream_summed_up() -> None:
    assert chat.summed_up(events("", "a", "b", "c")) == chat.Answer(3, 5, 3, 1.0, 2.0, "abc")


def test_a_stream_without_text_is_no_answer() -> None:
    with pytest.raises(ValueError, match="without text"):
        chat.summed_up(events("", ""))


def test_the_page_is_what_the_records_say() -> None:
    """No figure on it was typed by hand: `make proofs-page` writes it anew."""
    assert page.load_records()
    assert page.main(["--check"]) == 0


def test_every_slug_for_gpus_has_a_record_or_a_reason() -> None:
    cards = {path.parent.name: yaml.safe_load(path.read_text()) for path in recipe.DOCKER.glob("*/card.yaml")}
    for_gpus = {slug for slug, card in cards.items() if card["hardware"]["gpus"]}
    recorded = {record["slug"] for record in page.load_records()}
    assert recorded | NOT_ATTEMPTED.keys() == for_gpus
    assert not recorded & NOT_ATTEMPTED.keys()


def test_a_failed_round_counts_nowhere() -> None:
    good = {"concurrency": 1, "way": "direct", "failed": 0}
    loads = [good, good | {"failed": 3}, {"concurrency": 1, "way": "direct", "failure": "x"}]
    assert served.by_way({"loads": loads}) == {1: {"direct": [good]}}


def test_files_of_random_weights_are_the_model_s_own_in_names_and_bytes() -> None:
    """As the hub lists the 7B: two files, 15.23 GB in all, every tensor in one of them."""
    config = checkpoint.shape_of(row("r1-7b-files"))
    files = shards.named(shards.shards(config))
    listed = shards.index(files)
    assert list(files) == ["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"]
    assert listed["metadata"]["total_size"] == 15_231_233_024
    assert listed["weight_map"].keys() == dict(shards.tensors(config)).keys()
    assert listed["weight_map"]["lm_head.weight"] == list(files)[1]
    assert all(sum(map(shards.size, part.values())) <= shards.SHARD_BYTES for part in files.values())


def test_a_start_from_files_differs_by_nothing_for_that() -> None:
    one = row("r1-7b-files")
    environment = recipe.environment(one, Path("CACHES")) | {"VLLM_SERVER_DEV_MODE": "1"}
    record = {
        "slug": one.slug,
        "used_gpus": 1,
        "files": True,
        "options": recipe.options(one),
        "environment": environment,
        "config": {},
    }
    assert recipe.differences(record) == {}
