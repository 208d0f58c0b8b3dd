"""What is to be proven: a slug, on so many cards, with what differs from its recipe. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

R1, STEP_FP8, STEP_BF16 = "deepseek-r1-distill-qwen-7b", "step3p5-fp8", "step3p5-bf16-mtp"
STEP_3P7, KIMI = "step3p7-flash", "kimi-k2p5"


@dataclass(frozen=True, slots=True)
class Row:
    """One start of one slug.

    `layers`: as many of the model's instead of all. `config`: fields of its configuration that differ, `options` those
    of serve.yaml (None: left out), `environment` those of the image. `ready_within_s`: after that it counts as hung.
    `images`: whether it is shown some. `files`: random weights are written to the disk and read from there (of a Qwen2
    alone, `shards`), else vLLM makes them up. `loads`: concurrencies to measure.
    """

    key: str
    slug: str
    gpus: int
    title: str
    layers: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_within_s: float = 300
    images: bool = False
    files: bool = False
    loads: tuple[int, ...] = (32,)


# NVLink multicast off, in every way that vLLM would take it: on a host whose GPUs others share it may disturb them.
NO_MULTICAST = {
    "VLLM_FLASHINFER_ALLREDUCE_BACKEND": "trtllm",
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "NCCL_NVLS_ENABLE": "0",
}
FORKED = {"VLLM_WORKER_MULTIPROC_METHOD": "fork"}
SPAWNED = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
TENSOR_ONLY: dict[str, Any] = {"enable-expert-parallel": None}
# Inductor compiles a step of one token apart, and tries tiles for it.
SIZED = {"compilation-config": '{"pass_config": {"fuse_allreduce_rms": false}, "compile_sizes": [1]}'}
KIMI_EAGER: dict[str, Any] = {
    "enforce-eager": True,
    "compilation-config": None,
    "decode-context-parallel-size": None,
}

ROWS = (
    Row("r1-7b", R1, 1, "as shipped", loads=(1, 32, 256)),
    Row("r1-7b-files", R1, 1, "as shipped, weights from files", files=True, loads=(256,)),
    Row("r1-7b-files-spawned", R1, 1, "processes spawned, weights from files", environment=SPAWNED, files=True),
    Row("fp8", STEP_FP8, 2, "as shipped", environment=NO_MULTICAST),
    Row("fp8-forked", STEP_FP8, 2, "processes forked", environment=NO_MULTICAST | FORKED),
    Row("fp8-tp", STEP_FP8, 2, "processes forked, without expert parallelism", options=TENSOR_ONLY,
        environment=NO_MULTICAST | FORKED),
    Row("fp8-tp-sized", STEP_FP8, 2, "processes forked, without expert parallelism, compiled for one stream",
        options=TENSOR_ONLY | SIZED, environment=NO_MULTICAST | FORKED, ready_within_s=345),
    Row("fp8-tiles", STEP_FP8, 2, "tuned tiles for the experts",
        environment=NO_MULTICAST | {"VLLM_TUNED_CONFIG_FOLDER": "/tmp/tiles"}),  # where bench.gpu.experts wrote them
    Row("mtp", STEP_BF16, 2, "as shipped", layers=24, environment=NO_MULTICAST),
    Row("3p7", STEP_3P7, 2, "as shipped", environment=NO_MULTICAST, images=True),
    Row("3p7-forked", STEP_3P7, 2, "processes forked", environment=NO_MULTICAST | FORKED, images=True),
    Row("kimi", KIMI, 2, "as shipped", layers=13, environment=NO_MULTICAST, images=True),
    Row("kimi-graphs", KIMI, 2, "without decode context parallelism", layers=13,
        options={"decode-context-parallel-size": None}, environment=NO_MULTICAST),
    Row("kimi-eager", KIMI, 2, "eager, FlashInfer's all-reduce", layers=13, options=KIMI_EAGER,
        environment=NO_MULTICAST | {"VLLM_ALLREDUCE_USE_FLASHINFER": ""}, ready_within_s=400),
)  # fmt: skip

# Slugs without a row, and why.
NOT_ATTEMPTED: dict[str, str] = {}


def row(key: str) -> Row:
    """The row of that key. Raises LookupError naming those there are."""
    found = next((one for one in ROWS if one.key == key), None)
    if found is None:
        raise LookupError(f"no row is called {key}; there are: {', '.join(one.key for one in ROWS)}")
    return found
