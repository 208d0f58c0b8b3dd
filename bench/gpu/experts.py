"""Finds the fastest tiles of vLLM's Triton kernel for one shape of experts, on one GPU of this host.

usage: python -m bench.gpu.experts --out FOLDER --local 36 --total 288 --width 1280 --hidden 4096 --top-k 8 [--fp8]
                                   [--processes 8] [--batches 1,2,4]
Writes FOLDER/<the file name that vLLM looks for>.json, which VLLM_TUNED_CONFIG_FOLDER names, and FOLDER/<name>.csv
with what was measured. `local`: experts on one card (all of them without expert parallelism), `width`: the intermediate
size on one card. Tokens choose among `total` experts at random, as they do over all cards; those of other cards are
left out. A batch keeps vLLM's own tiles unless others are at least 2 % faster.
"""

import argparse
import csv
import itertools
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 2048, 4096, 8192)
BLOCK = 128  # of weights that share a scale
REPLAYS, ROUTINGS = 5, 8  # of one graph; random choices of experts within it
WORTH_IT = 0.98  # of the time that vLLM's own tiles take
Tiles = dict[str, int]


@dataclass(frozen=True, slots=True)
class Shape:
    """The experts of one layer on one card."""

    local: int
    total: int
    width: int
    hidden: int
    top_k: int
    fp8: bool


def candidates(batch: int, fp8: bool) -> list[Tiles]:
    """The tiles that are tried for a batch of so many tokens."""
    few = batch <= 64
    rows = (16, 32) if few else (16, 32, 64, 128)
    depths = (128,) if fp8 else (64, 128)
    groups = (1,) if few else (1, 16, 32)
    stages = (2, 3, 4, 5) if few else (3, 4)
    columns = (32, 64, 128) if few else (64, 128)
    names = ("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "GROUP_SIZE_M", "num_warps", "num_stages")
    every = itertools.product(rows, columns, depths, groups, (4, 8), stages)
    return [dict(zip(names, one, strict=True)) | {"SPLIT_K": 1} for one in every]


class Experts:
    """Random experts on the GPU, and one step through them."""

    def __init__(self, shape: Shape, batches: tuple[int, ...]) -> None:
        import torch
        from vllm.model_executor.layers.fused_moe.config import (
            FUSED_MOE_UNQUANTIZED_CONFIG,
            fp8_w8a8_moe_quant_config,
        )

        torch.manual_seed(0)
        self.torch, self.shape = torch, shape
        gate_up = torch.randn(shape.local, 2 * shape.width, shape.hidden, device="cuda", dtype=torch.bfloat16)
        down = torch.randn(shape.local, shape.hidden, shape.width, device="cuda", dtype=torch.bfloat16)
        self.quant = FUSED_MOE_UNQUANTIZED_CONFIG
        if shape.fp8:
            gate_up, down = gate_up.to(torch.float8_e4m3fn), down.to(torch.float8_e4m3fn)
            scales = [
                torch.rand(shape.local, one.shape[1] // BLOCK, one.shape[2] // BLOCK, device="cuda")
                for one in (gate_up, down)
            ]
            self.quant = fp8_w8a8_moe_quant_config(*scales, block_shape=[BLOCK, BLOCK])
        self.gate_up, self.down = gate_up, down
        self.map = torch.full((shape.total,), -1, dtype=torch.int32, device="cuda")
        self.map[: shape.local] = torch.arange(shape.local, dtype=torch.int32, device="cuda")
        self.inputs = {batch: self._inputs(batch) for batch in batches}

    def _inputs(self, batch: int) -> list[tuple[Any, Any, Any]]:
        torch, shape = self.torch, self.shape
        made = []
        for _ in range(ROUTINGS):
            tokens = torch.randn(batch, shape.hidden, device="cuda", dtype=torch.bfloat16)
            scores, chosen = torch.rand(batch, shape.total, device="cuda").topk(shape.top_k, dim=-1)
            made.append((tokens, scores, chosen.to(torch.int32)))
        return made

    def step(self, batch: int, at: int) -> None:
        from vllm.model_executor.layers.fused_moe.fused_moe import fused_experts

        tokens, scores, chosen = self.inputs[batch][at]
        fused_experts(
            tokens, self.gate_up, self.down, scores, chosen, global_num_experts=self.shape.total,
            expert_map=self.map if self.shape.local < self.shape.total else None, quant_config=self.quant,
        )  # fmt: skip

    def run(self, batch: int) -> float:
        """One step, for what it compiles; its time is not taken."""
        self.step(batch, 0)
        return 0.0

    def microseconds(self, batch: int) -> float:
        """The median time of one step, in a CUDA graph of one step for each random choice."""
        torch = self.torch
        self.step(batch, 0)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for at in range(ROUTINGS):
                self.step(batch, at)
        times = []
        for _ in range(REPLAYS):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) * 1000 / ROUTINGS)
        return float(statistics.median(times[1:]))


def tried(call: Callable[[], float]) -> float:
    """What `call` gives; infinity where the tiles do not fit the card."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001  # Triton's own errors have no common base
        print(f"experts: left out: {type(error).__name__}: {str(error)[:80]}", file=sys.stderr)
        return float("inf")


def compile_part(shape: Shape, batches: tuple[int, ...], part: int, parts: int) -> None:
    """One process's part of the kernels, so that the measuring process finds them compiled."""
    from vllm.model_executor.layers.fused_moe import override_config

    experts = Experts(shape, batches)
    for batch in batches:
        for tiles in candidates(batch, shape.fp8)[part::parts]:
            with override_config(tiles):
                tried(partial(experts.run, batch))
    experts.torch.cuda.synchronize()


def measured(shape: Shape, batches: tuple[int, ...]) -> Iterator[tuple[int, Tiles | None, float]]:
    """Every batch with vLLM's own tiles (None) and with each candidate, in microseconds."""
    from vllm.model_executor.layers.fused_moe import override_config

    experts = Experts(shape, batches)
    for batch in batches:
        yield batch, None, tried(partial(experts.microseconds, batch))
        for tiles in candidates(batch, shape.fp8):
            with override_config(tiles):
                yield batch, tiles, tried(partial(experts.microseconds, batch))


def best(rows: list[tuple[int, Tiles | None, float]], own: Callable[[int], Tiles]) -> dict[int, Tiles]:
    """For each batch the fastest tiles, or vLLM's own where nothing is worth a change."""
    chosen = {}
    for batch in sorted({row[0] for row in rows}):
        mine = [row for row in rows if row[0] == batch]
        standard = next(time for _, tiles, time in mine if tiles is None)
        _, tiles, time = min(mine, key=lambda row: row[2])
        chosen[batch] = tiles if tiles is not None and time <= WORTH_IT * standard else own(batch)
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.experts", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    for name in ("local", "total", "width", "hidden", "top-k"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--fp8", action="store_true")
    parser.add_argument("--processes", type=int, default=8, help="that compile side by side")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    given = parser.parse_args()
    shape = Shape(given.local, given.total, given.width, given.hidden, given.top_k, given.fp8)
    batches = tuple(map(int, given.batches.split(",")))
    context = multiprocessing.get_context("spawn")
    work = [
        context.Process(target=compile_part, args=(shape, batches, at, given.processes))
        for at in range(given.processes)
    ]
    for process in work:
        process.start()
    for process in work:
        process.join()
    rows = list(measured(shape, batches))
    write(given.out, shape, rows)
    return 0


def write(out: Path, shape: Shape, rows: list[tuple[int, Tiles | None, float]]) -> None:
    """Both files."""
    import triton
    from vllm.model_executor.layers.fused_moe.fused_moe import get_config_file_name, get_default_config

    dtype, block = ("fp8_w8a8", [BLOCK, BLOCK]) if shape.fp8 else (None, None)

    def own(batch: int) -> Tiles:
        found: Tiles = get_default_config(
            batch, shape.local, shape.width, shape.hidden, shape.top_k, dtype, block
        )
        return found

    name = get_config_file_name(shape.local, shape.width, dtype, block)
    out.mkdir(parents=True, exist_ok=True)
    found = {str(batch): tiles for batch, tiles in best(rows, own).items()}
    (out / name).write_text(json.dumps({"triton_version": triton.__version__, **found}, indent=1) + "\n")
    with (out / name).with_suffix(".csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("batch", "tiles", "microseconds"))
        table.writerows((batch, json.dumps(tiles), f"{time:.2f}") for batch, tiles, time in rows)


if __name__ == "__main__":
    sys.exit(main())
