"""The committed twins are what their scripts write: the real model's class and format, whole, small, readable.

That they recite is asserted where they are trained (tests/twins/training.py), on a real server by
tests/twins/recite.py, and through the whole stack in tests/e2e.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.twins import dialogues, dialogues_kimi, dialogues_step
from tests.twins.dialogues import Turn
from tests.twins.repertoire import REPERTOIRES

TWINS = Path(__file__).resolve().parents[1] / "twins"
THINK = ("<think>", "</think>")
CALLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


@dataclass(frozen=True)
class Form:
    """What a twin shares with the real model, and what the parsers need of its tokens."""

    architecture: str
    model_type: str
    context: int  # tokens
    end: str
    marks: tuple[str, ...]  # kept when text is decoded
    control: tuple[str, ...]  # dropped
    drafts: int = 0  # layers after the model's own


FORMS = {
    "qwen3": Form(
        "Qwen3ForCausalLM", "qwen3", 40960, "<|im_end|>", THINK + CALLS, ("<|endoftext|>", "<|im_start|>")
    ),
    "r1": Form(
        "Qwen2ForCausalLM",
        "qwen2",
        131072,
        "<｜end▁of▁sentence｜>",
        (*THINK, "<｜User｜>", "<｜Assistant｜>"),
        ("<｜begin▁of▁sentence｜>",),
    ),
    "step": Form(
        "Step3p5ForCausalLM", "step3p5", 262144, "<|im_end|>", THINK + CALLS, ("<|im_start|>",), drafts=1
    ),
    "kimi": Form(
        "DeepseekV3ForCausalLM",
        "deepseek_v3",
        262144,
        "<|im_end|>",
        THINK,
        (
            "<|im_user|>",
            "<|im_assistant|>",
            "<|im_system|>",
            "<|im_middle|>",
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ),
    ),
}
TURNS = [(twin, name) for twin, repertoire in REPERTOIRES.items() for name in repertoire.turns]


def load(twin: str, name: str) -> dict[str, Any]:
    return json.loads((TWINS / twin / name).read_text(encoding="utf-8"))


def tensors(twin: str) -> tuple[dict[str, dict[str, Any]], int]:
    """The header of the weights file, and the bytes that follow it."""
    blob = (TWINS / twin / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:start])
    header.pop("__metadata__", None)
    return header, len(blob) - start


def added_tokens(twin: str) -> dict[str, dict[str, Any]]:
    return {token["content"]: token for token in load(twin, "tokenizer.json")["added_tokens"]}


def test_every_twin_has_its_dialogues_and_its_script() -> None:
    """A checkpoint, a repertoire, a form and a training script belong together."""
    names = {path.parent.name for path in TWINS.glob("*/config.json")}
    scripts = {path.stem.removeprefix("train_") for path in TWINS.glob("train_*.py")}
    assert names == scripts == set(FORMS) == set(REPERTOIRES)


@pytest.mark.parametrize("twin", FORMS)
def test_a_twin_has_the_class_of_the_real_model_in_a_few_megabytes(twin: str) -> None:
    """vLLM picks the class of the real model, with its context length; git carries it without trouble."""
    config, form = load(twin, "config.json"), FORMS[twin]
    assert config["architectures"] == [form.architecture]
    assert (config["model_type"], config["max_position_embeddings"]) == (form.model_type, form.context)
    assert sum(path.stat().st_size for path in (TWINS / twin).iterdir()) < 6_000_000


@pytest.mark.parametrize("twin", FORMS)
def test_the_weights_are_whole_and_fit_the_config(twin: str) -> None:
    """The tensors fill the file to its last byte, in BF16, and have the shapes the config declares."""
    header, size = tensors(twin)
    config = load(twin, "config.json")
    assert size == sum(2 * math.prod(tensor["shape"]) for tensor in header.values())
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}
    assert header["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
    layers = {name.split(".")[2] for name in header if name.startswith("model.layers.")}
    assert layers == {str(layer) for layer in range(config["num_hidden_layers"] + FORMS[twin].drafts)}


def test_the_drafts_of_step_are_under_the_names_vllm_loads() -> None:
    """A draft layer brings its own norms, projection and head, beside an ordinary layer's parts."""
    config, header = load("step", "config.json"), tensors("step")[0]
    assert config["num_nextn_predict_layers"] == FORMS["step"].drafts
    own = {"enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.output"}
    prefix = f"model.layers.{config['num_hidden_layers']}."
    names = {name.removeprefix(prefix).removesuffix(".weight") for name in header if name.startswith(prefix)}
    assert own <= names
    assert "self_attn.q_proj" in names


def test_the_experts_of_step_are_packed() -> None:
    """All experts of a layer lie in one tensor, as in the real checkpoint."""
    config, header = load("step", "config.json"), tensors("step")[0]
    experts, hidden, size = (
        config[key] for key in ("moe_num_experts", "hidden_size", "moe_intermediate_size")
    )
    for layer in config["moe_layers_enum"].split(","):
        shapes = [
            header[f"model.layers.{layer}.moe.{part}_proj.weight"]["shape"] for part in ("gate", "up", "down")
        ]
        assert shapes == [[experts, size, hidden], [experts, size, hidden], [experts, hidden, size]]


def test_the_latent_attention_of_kimi_has_its_real_sizes() -> None:
    """vLLM's kernels for latent attention are made for these sizes and no others."""
    config = load("kimi", "config.json")
    sizes = ("kv_lora_rank", "qk_rope_head_dim")
    assert [config[key] for key in sizes] == [512, 64]


@pytest.mark.parametrize("twin", FORMS)
def test_marks_are_single_tokens(twin: str) -> None:
    """The parsers look for their marks among token ids; those they need are not dropped when text is decoded."""
    form = FORMS[twin]
    special = {token: found["special"] for token, found in added_tokens(twin).items()}
    named = (*form.marks, *form.control, form.end)
    assert {token: special.get(token) for token in named} == {
        token: token not in form.marks for token in named
    }


@pytest.mark.parametrize("twin", FORMS)
def test_generation_ends_with_the_turn(twin: str) -> None:
    """The end of a turn is the end of generation, and any temperature has one candidate."""
    end = added_tokens(twin)[FORMS[twin].end]["id"]
    generation = load(twin, "generation_config.json")
    assert (load(twin, "config.json")["eos_token_id"], generation["eos_token_id"]) == (end, end)
    assert generation["top_k"] == 1


@pytest.mark.parametrize("twin", FORMS)
def test_every_id_is_a_token(twin: str) -> None:
    """No row of the embedding is without a token and no token without a row."""
    vocabulary = load(twin, "tokenizer.json")["model"]["vocab"]
    ids = sorted([*vocabulary.values(), *(token["id"] for token in added_tokens(twin).values())])
    assert sorted(set(ids)) == list(range(load(twin, "config.json")["vocab_size"]))


@pytest.mark.parametrize("twin", FORMS)
def test_the_template_is_the_one_in_the_repository(twin: str) -> None:
    """Who edits the template must train the twin anew."""
    source = (TWINS / f"{twin}_chat_template.jinja").read_text(encoding="utf-8")
    assert load(twin, "tokenizer_config.json")["chat_template"] == source


@pytest.mark.parametrize("twin", FORMS)
def test_files_are_readable_by_a_worker(twin: str) -> None:
    """The hub that offers this folder in tests runs as another user than the one who cloned it."""
    assert [path.name for path in (TWINS / twin).iterdir() if not path.stat().st_mode & 0o004] == []


@pytest.mark.parametrize(("twin", "name"), TURNS)
def test_a_turn_is_a_request_a_client_can_send(twin: str, name: str) -> None:
    """Requests are JSON, end with what the model must answer, and expect text or a call, never both."""
    turn = REPERTOIRES[twin].turns[name]
    assert json.loads(json.dumps(turn.request())) == turn.request()
    assert turn.messages[-1]["role"] in {"user", "tool"}
    assert bool(turn.answer.content) != bool(turn.answer.tool_calls)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (dialogues.TOOL_CALL, dialogues.tool_answer("call-7")),
        (dialogues_step.SHANGHAI, dialogues_step.shanghai_answer("call-7")),
        (dialogues_step.BEIJING, dialogues_step.beijing_answer("call-7")),
        (dialogues_kimi.STRAWBERRY, dialogues_kimi.strawberry_answer("call-7")),
        (dialogues_kimi.COMPARISON, dialogues_kimi.comparison_answer("call-7")),
    ],
)
def test_the_second_round_answers_the_first(first: Turn, second: Turn) -> None:
    """The tool's message names the call that the assistant made, with or without its reasoning sent back."""
    question, call, result = second.messages
    assert (question,) == first.messages
    assert [made["id"] for made in call["tool_calls"]] == [result["tool_call_id"]] == ["call-7"]
    arguments = json.loads(call["tool_calls"][0]["function"]["arguments"])
    assert arguments == first.answer.tool_calls[0].arguments
    sent_back = [message.get("reasoning", "") for message in second.with_reasoning().messages]
    assert sent_back == ["", first.answer.reasoning, ""]
