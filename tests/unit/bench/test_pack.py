"""What is packed for a bare GPU host: the pinned wheels and the lock's, without machine code for other GPUs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bench.gpu import slim, wanted
from bench.gpu.rows import ROWS

HOPPER, OTHER = 90, 100


def entry(kind: int, architecture: int, code: bytes) -> bytes:
    head = slim.ENTRY.pack(kind, 1, 64, len(code)) + bytes(12) + struct.pack("<I", architecture)
    return head.ljust(64, b"\0") + code


def fat(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return slim.HEAD.pack(0xBA55ED50, 1, slim.HEAD.size, len(body)) + body


def test_code_for_other_gpus_becomes_zeros_and_nothing_moves() -> None:
    mine, others, text = b"mine" * 8, b"other" * 8, b"ptx!" * 8
    before = (
        b"before" + fat(entry(2, OTHER, others), entry(2, HOPPER, mine), entry(1, HOPPER, text)) + b"behind"
    )
    data = bytearray(before)
    assert slim.slim(data, HOPPER) == len(others) + len(text)
    assert bytes(data) == before.replace(others, bytes(len(others))).replace(text, bytes(len(text)))


def test_a_fat_binary_without_code_for_this_gpu_stays_whole() -> None:
    """Its text form may be compiled where it runs."""
    before = fat(entry(2, OTHER, b"other"), entry(1, OTHER, b"text"))
    data = bytearray(before)
    assert slim.slim(data, HOPPER) == 0
    assert bytes(data) == before


@pytest.mark.parametrize("cut", [3, 12, 20, 40, 90])
def test_the_magic_number_by_chance_is_no_fat_binary(cut: int) -> None:
    """Nothing is written where the head or an entry does not fit."""
    data = bytearray(b"x" + fat(entry(2, OTHER, b"other"), entry(2, HOPPER, b"mine"))[:cut])
    kept = bytes(data)
    assert slim.slim(data, HOPPER) == 0
    assert bytes(data) == kept


@pytest.mark.parametrize("slug", sorted({row.slug for row in ROWS}))
def test_every_proof_s_slug_has_what_it_needs_by_hash(slug: str) -> None:
    found = wanted.wanted(slug)
    assert {
        "vllm",
        "torch",
        "transformers",
        "triton",
        "flashinfer-python",
        "nvidia-nccl-cu13",
        "orjson",
    } <= found.keys()
    assert not {"numpy", "nvidia-cublas", "tilelang"} & found.keys()
    assert [name for name, text in found.items() if "--hash=sha256:" not in text] == []
    assert [name for name, text in found.items() if " ; " in text] == []


def test_a_cache_that_served_another_build_is_not_mixed_into_this_one(tmp_path: Path) -> None:
    needs = {
        "vllm": "vllm==0.32.0 --hash=sha256:0",
        "typing-extensions": "typing-extensions==4.16.0 \\\n    --hash=sha256:0",
    }
    mine = ["typing_extensions-4.16.0-py3-none-any.whl", "vllm-0.32.0-cp38-abi3-manylinux_2_28_x86_64.whl"]
    others = [
        "vllm-0.33.0-cp38-abi3-manylinux_2_28_x86_64.whl",
        "torch-2.13.0-cp312-cp312-linux_x86_64.whl",
        "wanted",
    ]
    for name in mine + others:
        (tmp_path / name).touch()
    assert [wheel.name for wheel in wanted.chosen(tmp_path, needs)] == mine
