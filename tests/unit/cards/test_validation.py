"""What a card's facts allow: layouts, numbers of GPUs, memory; every refusal names its numbers."""

import argparse

import pytest

from cards.card import Card, GpuNeeds, Weights
from cards.layout import Experts, Layout, Shape
from cards.request import LayoutRequest, setting
from cards.validation import Refused, gigabytes, verdict

LAYOUTS = (Layout(8, True), Layout(4, True), Layout(2, False))
MOE = Shape(heads=64, kv_heads=8, experts=Experts(count=288, intermediate=1280, block=128))
DENSE = Shape(heads=28, kv_heads=4, experts=None)


def card(
    shape: Shape | None = MOE,
    weights: float = 205e9,
    memory: float = 80e9,
    gpus: int = 8,
    share: float = 0.92,
    kinds: tuple[str, ...] = (),
) -> Card:
    hardware = GpuNeeds(gpus, int(memory), "580", shape, LAYOUTS, "because", kinds) if gpus else None
    return Card("a-slug", Weights("o/n", "FP8", int(weights), "MIT", ("A",)), hardware, 1, share, "1", (), "")


def asked(*words: str) -> LayoutRequest:
    return LayoutRequest.of(map(setting, words))


def refusal(card: Card, *words: str) -> str:
    """The one sentence with which the words are refused."""
    with pytest.raises(Refused) as refused:
        verdict(card, asked(*words))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_served_layout_is_meant_when_nothing_is_said() -> None:
    """The first layout of the card is the default, and the answer says what it takes."""
    assert verdict(card(), LayoutRequest()) == "a-slug can run with TP=8 EP=1 on 8 GPUs of at least 80 GB"


def test_the_answer_says_which_kinds_of_gpu_a_recipe_is_for() -> None:
    """A yes for eight GPUs of that size is none for every eight of them."""
    said = verdict(card(kinds=("9.0", "10.0")), LayoutRequest())
    assert said.endswith("on 8 GPUs of at least 80 GB, compute capability 9.0 or 10.0")


@pytest.mark.parametrize(
    "words", [(), ("TP=4",), ("TP=2",), ("TP=2", "EP=0"), ("TP=8", "EP=1", "GPUS=9"), ("TP=", "GPUS=")]
)
def test_legal_combinations_are_allowed(words: tuple[str, ...]) -> None:
    """What is left open is as the declared layout with that TP has it; more GPUs than needed do no harm."""
    assert "can run" in verdict(card(), asked(*words))


def test_experts_are_cut_at_block_borders_only() -> None:
    """FP8 in blocks of 128: eight parts of 1280 are 160 wide, so whole experts must go to each GPU instead."""
    said = refusal(card(), "TP=8", "EP=0")
    assert all(number in said for number in ("1280", " 8 ", "160", "128", "TP=8 EP=1"))


def test_experts_without_blocks_need_an_even_cut_only() -> None:
    """BF16 has no blocks: 160 is as good as any; a cut that leaves a rest is not."""
    plain = Shape(192, 8, Experts(288, 1280, 1))
    assert "can run" in verdict(card(plain), asked("TP=8", "EP=0"))
    assert "1280" in refusal(card(plain), "TP=24", "EP=0")


@pytest.mark.parametrize(("words", "number"), [(("TP=3",), "28"), (("TP=7",), "4 key-value heads")])
def test_heads_are_shared_out_whole(words: tuple[str, ...], number: str) -> None:
    """Attention heads are divided; key-value heads are divided, or repeated on a multiple of their number."""
    assert number in refusal(card(DENSE), *words, "EP=0")


def test_key_value_heads_may_be_repeated() -> None:
    """Twice as many GPUs as key-value heads: each head is on two."""
    assert "can run" in verdict(card(Shape(64, 4, None)), asked("TP=8", "EP=0"))


def test_a_model_without_experts_has_none_to_spread() -> None:
    """vLLM refuses expert parallelism for a dense model."""
    assert "EP=0" in refusal(card(DENSE), "TP=4", "EP=1")


def test_fewer_gpus_than_the_layout_takes_are_refused() -> None:
    """The sentence has both numbers and the layouts to choose from."""
    said = refusal(card(), "GPUS=4")
    assert all(word in said for word in ("takes 8 GPUs", "GPUS is 4", "TP=4 EP=1"))


def test_memory_is_the_declared_minimum_or_what_the_weights_need() -> None:
    """Few weights a GPU: the card's own minimum. Many: (weights/TP + 4 GB) within vLLM's share of the GPU."""
    assert "80 GB" in refusal(card(), "GPU_MEMORY_GB=79.9")
    assert "115.8 GB" in refusal(card(), "TP=2", "GPU_MEMORY_GB=80")
    assert "can run" in verdict(card(), asked("TP=2", "GPU_MEMORY_GB=115.8"))
    assert "213 GB" in refusal(card(share=0.5), "TP=2", "GPU_MEMORY_GB=140")


def test_a_model_too_large_for_80_gb_names_the_memory_it_needs() -> None:
    """595 GB on eight GPUs of 80 GB: refused with the minimum, the weights and each one's part."""
    said = refusal(card(weights=595e9, memory=141e9), "GPU_MEMORY_GB=80")
    assert all(number in said for number in ("141 GB", "80", "595 GB", "74.4 GB"))


def test_without_a_shape_only_declared_layouts_are_allowed() -> None:
    """Nothing to compute from: what is not declared is refused."""
    assert "can run" in verdict(card(None), asked("TP=2"))
    assert "no shape" in refusal(card(None), "TP=2", "EP=1")


def test_a_layout_that_is_legal_but_not_declared_is_said_to_be() -> None:
    """Legal by the shape, and nobody declared it: yes, with a remark."""
    assert "declares TP=8 EP=1, TP=4 EP=1, TP=2 EP=0 only" in verdict(card(), asked("TP=2", "EP=1"))


def test_a_slug_of_the_cpu_has_no_layout() -> None:
    """It needs no GPU, and cannot be spread over any."""
    assert "no GPU" in verdict(card(gpus=0), LayoutRequest())
    assert "CPU" in refusal(card(gpus=0), "TP=2")


@pytest.mark.parametrize(
    "word",
    [
        "TP=0",
        "TP=x",
        "TP=-1",
        "TP=1.5",
        "TP=٨",
        "EP=2",
        "EP=yes",
        "GPUS=0",
        "GPU_MEMORY_GB=0",
        "GPU_MEMORY_GB=nan",
        "GPU_MEMORY_GB=80GB",
        "PP=2",
        "TP",
        "=",
        "",
    ],
)
def test_words_that_mean_nothing_are_refused_in_one_line(word: str) -> None:
    """The line names the variable and its value."""
    with pytest.raises(argparse.ArgumentTypeError) as wrong:
        setting(word)
    assert word.partition("=")[0] in str(wrong.value)
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("count", "text"), [(80e9, "80 GB"), (85.15e9, "85.2 GB"), (0, "0 GB"), (1, "0.1 GB")]
)
def test_gigabytes_never_understate(count: float, text: str) -> None:
    """Decimal gigabytes, rounded up to a tenth."""
    assert gigabytes(count) == text
