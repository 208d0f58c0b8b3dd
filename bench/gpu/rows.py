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
    `refusal`: what a start that must fail says; "" where it must serve. `images`: whether it is shown some. `loads`:
    concurrencies to measure.
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
    refusal: str = ""
    images: bool = False
    loads: tuple[int, ...] = (32,)


# NVLink multicast off, in every way that vLLM would take it: on a host whose GPUs others share it may disturb them.
NO_MULTICAST = {
    "VLLM_FLASHINFER_ALLREDUCE_BACKEND": "trtllm",
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "NCCL_NVLS_ENABLE": "0",
}
EAGER: dict[str, Any] = {"enforce-eager": True, "compilation-config": None}
AUTOTUNED: dict[str, Any] = {"no-enable-flashinfer-autotune": None}
OWN_MOE: dict[str, Any] = {"moe-backend": None}
OWN_KERNELS = {"VLLM_USE_FLASHINFER_SAMPLER": "", "VLLM_USE_DEEP_GEMM": ""}

ROWS = (
    Row("r1-7b", R1, 1, "as shipped", loads=(1, 32, 256)),
    Row("fp8-no-ep", STEP_FP8, 2, "without expert parallelism, each card with as much of an expert as one of eight",
        layers=5, config={"moe_intermediate_size": 320}, options={"enable-expert-parallel": None},
        environment=NO_MULTICAST, refusal="block_n = 128"),
    Row("fp8", STEP_FP8, 2, "compiled, with CUDA graphs", environment=NO_MULTICAST),
    Row("fp8-eager", STEP_FP8, 2, "eager", options=EAGER, environment=NO_MULTICAST),
    Row("fp8-autotune", STEP_FP8, 2, "compiled, with CUDA graphs, FlashInfer's autotune on", options=AUTOTUNED,
        environment=NO_MULTICAST),
    Row("fp8-own-moe", STEP_FP8, 2, "compiled, with CUDA graphs, vLLM's own choice for the experts", options=OWN_MOE,
        environment=NO_MULTICAST | OWN_KERNELS),
    Row("mtp", STEP_BF16, 2, "compiled, with CUDA graphs", layers=24, environment=NO_MULTICAST),
    Row("mtp-eager", STEP_BF16, 2, "eager", layers=24, options=EAGER, environment=NO_MULTICAST),
    Row("3p7", STEP_3P7, 2, "compiled, with CUDA graphs", environment=NO_MULTICAST, images=True),
    Row("3p7-eager", STEP_3P7, 2, "eager", options=EAGER, environment=NO_MULTICAST, images=True),
    Row("kimi", KIMI, 2, "eager, as shipped", layers=13, environment=NO_MULTICAST, images=True),
)  # fmt: skip

# Slugs without a row, and why.
NOT_ATTEMPTED: dict[str, str] = {}


def row(key: str) -> Row:
    """The row of that key. Raises LookupError naming those there are."""
    found = next((one for one in ROWS if one.key == key), None)
    if found is None:
        raise LookupError(f"no row is called {key}; there are: {', '.join(one.key for one in ROWS)}")
    return found
