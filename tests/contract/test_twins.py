"""The committed twin is the checkpoint its script writes: Qwen3's class and format, whole, small, readable.

That it recites is asserted where it is trained (tests/twins/train_qwen3.py) and on real vLLM (tests/e2e).
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.twins import dialogues

TWINS = Path(__file__).resolve().parents[1] / "twins"
TWIN = TWINS / "qwen3"
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def load(name: str) -> dict[str, Any]:
    return json.loads((TWIN / name).read_text(encoding="utf-8"))


def tensors() -> tuple[dict[str, dict[str, Any]], int]:
    """The header of the weights file, and the bytes that follow it."""
    blob = (TWIN / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:start])
    header.pop("__metadata__", None)
    return header, len(blob) - start


def added_tokens() -> dict[str, dict[str, Any]]:
    return {token["content"]: token for token in load("tokenizer.json")["added_tokens"]}


def test_the_twin_is_a_qwen3_of_a_few_megabytes() -> None:
    """vLLM picks the class of the real model, with its context length; git carries it without trouble."""
    config = load("config.json")
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert (config["model_type"], config["max_position_embeddings"]) == ("qwen3", 40960)
    assert sum(path.stat().st_size for path in TWIN.iterdir()) < 4_000_000


def test_the_weights_are_whole_and_fit_the_config() -> None:
    """The tensors fill the file to its last byte, in BF16, and have the shapes the config declares."""
    header, size = tensors()
    config = load("config.json")
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}
    assert size == sum(2 * math.prod(tensor["shape"]) for tensor in header.values())
    assert header["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
    layers = {name.split(".")[2] for name in header if name.startswith("model.layers.")}
    assert layers == {str(layer) for layer in range(config["num_hidden_layers"])}


@pytest.mark.parametrize("token", [*MARKS, *CONTROL])
def test_marks_are_single_tokens(token: str) -> None:
    """The parsers look for their marks among token ids; those they need are not dropped when text is decoded."""
    assert added_tokens()[token]["special"] == (token in CONTROL)


def test_generation_ends_with_the_turn() -> None:
    """The end of a turn is the end of generation, and any temperature has one candidate."""
    end = added_tokens()["<|im_end|>"]["id"]
    generation = load("generation_config.json")
    assert (load("config.json")["eos_token_id"], generation["eos_token_id"]) == (end, end)
    assert generation["top_k"] == 1


def test_every_id_is_a_token() -> None:
    """No row of the embedding is without a token and no token without a row."""
    vocabulary = load("tokenizer.json")["model"]["vocab"]
    ids = sorted([*vocabulary.values(), *(token["id"] for token in added_tokens().values())])
    assert sorted(set(ids)) == list(range(load("config.json")["vocab_size"]))


def test_the_template_is_the_one_in_the_repository() -> None:
    """Who edits the template must train the twin anew."""
    source = (TWINS / "qwen3_chat_template.jinja").read_text(encoding="utf-8")
    assert load("tokenizer_config.json")["chat_template"] == source


def test_files_are_readable_by_a_worker() -> None:
    """The hub that offers this folder in tests runs as another user than the one who cloned it."""
    assert [path.name for path in TWIN.iterdir() if not path.stat().st_mode & 0o004] == []


@pytest.mark.parametrize("name", dialogues.TURNS)
def test_a_turn_is_a_request_a_client_can_send(name: str) -> None:
    """Requests are JSON, end with what the model must answer, and expect text or a call, never both."""
    turn = dialogues.TURNS[name]
    assert json.loads(json.dumps(turn.request())) == turn.request()
    assert turn.messages[-1]["role"] in {"user", "tool"}
    assert bool(turn.answer.content) != bool(turn.answer.tool_calls)


def test_the_second_round_answers_the_first() -> None:
    """The tool's message names the call that the assistant made."""
    question, call, result = dialogues.tool_answer("call-7").messages
    assert question == dialogues.WEATHER_QUESTION
    assert [made["id"] for made in call["tool_calls"]] == [result["tool_call_id"]] == ["call-7"]
    assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {"city": "北京"}
