"""Cards are validated whole, and what is wrong is said in one line with file, fact and value."""

import datetime
import os
from pathlib import Path

import pytest

from cards import card, describe
from cards.facts import CardError
from cards.layout import Experts, Layout, Shape
from tests.unit.cards.cards_on_disk import CARD, FOR_HOPPER, SLUG, write


def refusal(directory: Path) -> str:
    with pytest.raises(CardError) as wrong:
        card.load(directory, SLUG)
    assert len(str(wrong.value).splitlines()) == 1
    return str(wrong.value)


def test_a_whole_card_is_read(tmp_path: Path) -> None:
    """Every fact that programs compute with arrives with its type."""
    write(tmp_path)
    found = card.load(tmp_path, SLUG)
    assert found.gpus == card.GpuNeeds(
        8, 80_000_000_000, "580", Shape(64, 8, Experts(4, 1280, 128)), (Layout(8, True),), "blocks"
    )
    assert found.weights == card.Weights("owner/name", "BF16", 1_000_000, "MIT", ("TinyForCausalLM",))
    assert (found.context, found.memory_share) == (10, card.VLLM_SHARE)
    assert found.proven[0].date == datetime.date(2026, 11, 20)


def test_a_card_is_printed_a_fact_a_line(tmp_path: Path) -> None:
    """A person finds weights, GPUs, layouts, the pin with its candidate, and what was proven and what not."""
    write(tmp_path)
    said = "\n".join(describe.lines(card.load(tmp_path, SLUG)))
    for words in (
        "owner/name",
        "8 of at least 80 GB",
        "TP=8 EP=1 (served)",
        "candidate bbbbbbbbb, not verified",
    ):
        assert words in said
    assert "2026-11-20, vLLM 1.10.0, 4 x H200: random weights" in said
    assert "not proven  the real checkpoint" in said


def test_a_recipe_may_be_for_some_kinds_of_gpu(tmp_path: Path) -> None:
    """The card says for which; one that says nothing is for any, and its print has no word of it."""
    write(tmp_path)
    assert "capability" not in "\n".join(describe.lines(card.load(tmp_path, SLUG)))
    write(tmp_path, FOR_HOPPER)
    said = "\n".join(describe.lines(card.load(tmp_path, SLUG)))
    assert "8 of at least 80 GB, compute capability 9.0, driver 580 or newer" in said


@pytest.mark.parametrize("kinds", ["9.0", "[9.0]", '"9.0"', '["9"]', '["9.0", ""]', "[]"])
def test_a_wrong_compute_capability_is_named(tmp_path: Path, kinds: str) -> None:
    """YAML takes 9.0 without quotes for a number; an empty list would allow no GPU at all."""
    write(tmp_path, FOR_HOPPER.replace('["9.0"]', kinds))
    said = refusal(tmp_path)
    assert "hardware.compute_capabilities is" in said
    assert 'in quotes, such as ["9.0"]' in said


@pytest.mark.parametrize(
    ("found", "written", "words"),
    [
        ("slug: big-model", "slug: other", ("slug is 'other'", "'big-model'")),
        ("slug: big-model", "slug: 7", ("slug is 7",)),
        ("repo: owner/name", "repo: name", ("weights.repo is 'name'", "owner/name")),
        ("bytes: 1000000", "bytes: 1e6", ("weights.bytes is '1e6'", "whole number")),
        ("bytes: 1000000", "bytes: 0", ("weights.bytes is 0", "from 1")),
        (", licence: MIT", "", ("weights.licence is missing",)),
        (
            "[TinyForCausalLM]",
            "TinyForCausalLM",
            ("weights.architectures is 'TinyForCausalLM'", "a list of class names"),
        ),
        ("gpus: 8", "gpus: true", ("hardware.gpus is True", "whole number")),
        ("gpus: 8", "gpus: 4", ("hardware.layouts", "at most 4 GPUs")),
        ("gpu_memory_bytes", "gpu_memory", ("hardware.gpu_memory is not known", "gpu_memory_bytes")),
        ('driver: "580"', "driver: 580", ("hardware.driver is 580", "quotes")),
        ("heads: 64, ", "", ("hardware.shape.heads is missing",)),
        ("block: 128", "block: 0", ("hardware.shape.experts.block is 0",)),
        ("expert_parallel: true}]", "expert_parallel: 1}]", ("hardware.layouts[0].expert_parallel is 1",)),
        ("expert_parallel: true}]", "expert_parallel: false}]", ("layouts[0] is TP=8 EP=0", "1280", "128")),
        ("[{tensor_parallel: 8, expert_parallel: true}]", "[]", ("hardware.layouts is []",)),
        ("[{tensor_parallel: 8, expert_parallel: true}]", "8", ("hardware.layouts is 8", "list")),
        ("load_s: {at_1_gb_per_s: 1}", "load_s: {at_1_gb_per_s: soon}", ("hardware.load_s.at_1_gb_per_s",)),
        ("context: 10", "context: 30", ("serving.context is 30", "20")),
        ("parsers: {reasoning: x}", "parsers: {thinking: x}", ("serving.parsers.thinking is not known",)),
        ("parsers: {", "warms: [tools], parsers: {", ("serving.warms is ['tools']", "some of text, images")),
        (
            "parsers: {",
            "warms: [speech], parsers: {",
            ("serving.warms is ['speech']", "a list of text, tools, images"),
        ),
        ('vllm_minimum: "1.2"', 'vllm_minimum: "1.11"', ("serving.vllm_minimum", "1.10.0")),
        ('vllm_minimum: "1.2"', "vllm_minimum: 1.2", ("serving.vllm_minimum is 1.2", "quotes")),
        ("a" * 64, "abc", ("pin.vllm.sha256 is 'abc'", "64")),
        ('commit: "5df63a720"', "commit: 5df63", ("pin.vllm.commit is '5df63'",)),
        ("torch: {", "troch: {", ("pin.troch is not known",)),
        ("b" * 40, "b" * 39, ("candidate.commit", "40")),
        ("verified: false", "verified: true", ("candidate.verified is True", "pin")),
        ("date: 2026-11-20", "date: yesterday", ("proven[0].date is 'yesterday'",)),
        ("not_proven:", "unproven:", ("unproven is not known", "not_proven")),
        ("proven: [{", "proven: [7, {", ("proven is [7", "list of sections")),
        ("weights: {", "weights: [", ("not valid YAML",)),
        (CARD, "[1]", ("must be a mapping",)),
        (CARD, "", ("must be a mapping",)),
    ],
)
def test_a_wrong_fact_is_named(tmp_path: Path, found: str, written: str, words: tuple[str, ...]) -> None:
    """Missing, mistyped, of another type, out of range, or in contradiction to another fact."""
    assert found in CARD
    path = write(tmp_path, CARD.replace(found, written, 1))
    assert [word for word in (str(path), *words) if word not in refusal(tmp_path)] == []


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
GPUS, DATE, SLUG_LINE = "gpus: 8", "date: 2026-11-20", f"slug: {SLUG}"


@pytest.mark.parametrize(
    ("found", "written", "words"),
    [
        (CARD, "[" * 5_000, "nested more than 20 deep"),
        (CARD, "{a: " * 5_000, "nested more than 20 deep"),
        (CARD, "\n".join(f"{' ' * depth}a:" for depth in range(500)), "nested more than 20 deep"),
        (CARD, BOMB, "line 1: anchors and aliases are not taken"),
        (CARD, f"{CARD}\nx: *nowhere\n", "anchors and aliases are not taken"),
        (CARD, "&a [*a]", "anchors and aliases are not taken"),
        (CARD, "!!python/object/apply:os.system [true]", "line 1: tags are not taken"),
        (CARD, "!!bool maybe", "tags are not taken"),
        (CARD, "a: 1\n" * 100_000, "it is larger than 262144 bytes"),
        (GPUS, f"gpus: {'9' * 400}", f"hardware.gpus is '{'9' * 99}...: it must be a whole number from 0"),
        (GPUS, f"gpus: {'9' * 5_000}", "hardware.gpus is '999"),
        (GPUS, f"gpus: 0x{'f' * 5_000}", "hardware.gpus is "),
        (
            GPUS,
            "gpus: 9999999999999999999",
            "hardware.gpus is 9999999999999999999: it must be at most 1000000000000000000",
        ),
        (GPUS, "gpus: true", "hardware.gpus is True"),
        (GPUS, "gpus: 1.0e+400", "hardware.gpus is inf"),
        (GPUS, "gpus: .nan", "hardware.gpus is nan"),
        (DATE, "date: 2026-13-45", "proven[0].date is '2026-13-45': it must be a date"),
        (SLUG_LINE, 'slug: "\\ud800"', "slug is '\\ud800'"),
        (SLUG_LINE, 'slug: "a\\0"', "slug is 'a\\x00'"),
        ('"580"', f'"{"9" * 5_000}"', "hardware.driver is '999"),
        ('"1.10.0"', f'"{"9" * 5_000}"', "pin.vllm.version is '999"),
        (SLUG_LINE, f"{SLUG_LINE}\n? [a]\n: 1", "not valid YAML"),
        (SLUG_LINE, f"{SLUG_LINE}\n{'k' * 500}: 1", "kkk... is not known"),
        (SLUG_LINE, f"{SLUG_LINE}\n7: 1", "7 is not known"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_no_card_needs_is_refused_at_once(tmp_path: Path, found: str, written: str, words: str) -> None:
    """In one sentence with file, fact and value; no bomb goes off."""
    assert found in CARD
    path = write(tmp_path, CARD.replace(found, written, 1))
    said = refusal(tmp_path)
    assert said.startswith(str(path))
    assert words in said
    assert len(said) < 600
    assert said.isprintable()


def test_a_card_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe would be waited for."""
    path = write(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert refusal(tmp_path) == f"{path} cannot be read: it is not a regular file"


@pytest.mark.parametrize("share", ["true", ".nan", ".inf", "9" * 400, '"0.9"', "[0.9]"])
def test_a_share_of_memory_is_a_number(tmp_path: Path, share: str) -> None:
    write(tmp_path, serve=f"gpu-memory-utilization: {share}\n")
    assert "gpu-memory-utilization is " in refusal(tmp_path)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ("60", "progress is 60: it must be a section"),
        ("{after_s: 60}", "progress.after_s is not known: use suspect_s, down_s"),
        ("{suspect_s: soon}", "progress.suspect_s is 'soon'"),
        ("{down_s: 0}", "progress.down_s is 0"),
        ("{suspect_s: 200}", "progress.suspect_s is 200: it must be at most down_s, 180"),
    ],
)
def test_wrong_limits_of_standing_still_are_named(tmp_path: Path, limits: str, words: str) -> None:
    """What the gateway would refuse to start with is found before."""
    write(tmp_path, f"{CARD}\nprogress: {limits}\n")
    assert words in refusal(tmp_path)
    write(tmp_path, f"{CARD}\nprogress: {{suspect_s: 200, down_s: 600}}\n")
    assert card.load(tmp_path, SLUG).slug == SLUG


@pytest.mark.parametrize("build", ["1.2.0", "1.10.0rc1.dev143+g29468dde8", "2.0"])
def test_a_pin_may_be_a_nightly_build(tmp_path: Path, build: str) -> None:
    """The numbers in front are compared with vllm_minimum."""
    write(tmp_path, CARD.replace('version: "1.10.0"', f'version: "{build}", date: 2026-11-20'))
    assert card.load(tmp_path, SLUG).vllm.startswith(build)


def test_an_unknown_slug_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    """A typing mistake is mended by reading on; a path is no slug."""
    write(tmp_path)
    for slug in ("big-modle", "../big-model", ""):
        with pytest.raises(CardError, match=f"is no slug: .* has {SLUG}"):
            card.load(tmp_path, slug)


def test_the_share_of_memory_is_that_of_serve_yaml(tmp_path: Path) -> None:
    """What vLLM is told to take of each GPU is what the check asks to be free."""
    write(tmp_path, serve="gpu-memory-utilization: 0.5\n")
    assert card.load(tmp_path, SLUG).memory_share == 0.5
    write(tmp_path, serve="gpu-memory-utilization: 92\n")
    assert "gpu-memory-utilization is 92" in refusal(tmp_path)


def test_a_slug_of_the_cpu_needs_no_gpu_facts(tmp_path: Path) -> None:
    """No layouts, no driver: memory of the container instead."""
    head, _, tail = CARD.partition("hardware:")
    hardware = (
        "hardware: {gpus: 0, cpu: x86-64, memory_bytes: 6, shm_bytes: 2}\nserving:"
        + tail.partition("serving:")[2]
    )
    write(tmp_path, head + hardware)
    assert card.load(tmp_path, SLUG).gpus is None
    assert "none: it runs on the CPU" in "\n".join(describe.lines(card.load(tmp_path, SLUG)))
