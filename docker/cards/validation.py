"""Decides by a card alone whether a layout, GPUs and their memory can serve the model. Pure. Each GPU needs memory for
its part of the weights and `WORK_BYTES`, both within the share that vLLM takes, and at least what the card declares
(`hardware.gpu_memory_bytes`)."""

import math
from collections.abc import Iterator

from cards.card import Card, GpuNeeds
from cards.layout import Layout
from cards.request import LayoutRequest

WORK_BYTES = 4_000_000_000  # for activations, NCCL's buffers and the smallest useful KV cache, on each GPU


class Refused(Exception):
    """The request cannot be served; the text is one sentence that says why."""


def verdict(card: Card, request: LayoutRequest) -> str:
    """Return one line that says with which layout and GPUs it can run. Raises Refused with the first reason against."""
    if card.gpus is None:
        return _on_the_cpu(card, request)
    layout = resolve_layout(card.gpus, request)
    for reason in _objections(card, card.gpus, layout, request):  # only the first is told
        raise Refused(f"{card.slug} cannot run with {layout}: {reason}")
    need = memory_needed(card, card.gpus, layout)
    gpus = "1 GPU" if layout.tensor_parallel == 1 else f"{layout.tensor_parallel} GPUs"
    remark = "" if layout in card.gpus.layouts else f"; its card declares {_declared(card.gpus)} only"
    return f"{card.slug} can run with {layout} on {gpus} of at least {gigabytes(need)}{kind_suffix(card.gpus)}{remark}"


def _on_the_cpu(card: Card, request: LayoutRequest) -> str:
    """Return `verdict` for a slug without GPUs. Raises Refused if the request spreads it over some."""
    if request.tensor_parallel not in (None, 1) or request.expert_parallel:
        raise Refused(f"{card.slug} runs on the CPU: it cannot be spread over GPUs, so leave out TP and EP")
    return f"{card.slug} runs on the CPU and needs no GPU"


def resolve_layout(gpus: GpuNeeds, request: LayoutRequest) -> Layout:
    """Return the request's layout; what it leaves open is as in the first declared layout that matches it."""
    ways = request.tensor_parallel or gpus.layouts[0].tensor_parallel
    like = next((layout for layout in gpus.layouts if layout.tensor_parallel == ways), gpus.layouts[0])
    whole = like.expert_parallel if request.expert_parallel is None else request.expert_parallel
    return Layout(ways, whole)


def memory_needed(card: Card, gpus: GpuNeeds, layout: Layout) -> float:
    """Return how many bytes of memory each GPU of the layout must have in all."""
    part = card.weights.bytes / layout.tensor_parallel
    return max((part + WORK_BYTES) / card.memory_share, gpus.memory_bytes)


def _objections(card: Card, gpus: GpuNeeds, layout: Layout, request: LayoutRequest) -> Iterator[str]:
    """Yield each reason why the layout cannot run on the requested GPUs."""
    if gpus.shape:
        yield from (f"{why}; declared to work: {_declared(gpus)}" for why in gpus.shape.objections(layout))
    elif layout not in gpus.layouts:
        yield f"its card has no shape to judge that by, and declares {_declared(gpus)} only"
    if (given := request.gpus) is not None and given < layout.tensor_parallel:
        yield f"that takes {layout.tensor_parallel} GPUs and GPUS is {given}; declared to work: {_declared(gpus)}"
    need = memory_needed(card, gpus, layout)
    if request.gpu_memory_bytes is not None and request.gpu_memory_bytes < need:
        yield (
            f"it needs GPUs with at least {gigabytes(need)} and GPU_MEMORY_GB is "
            f"{request.gpu_memory_bytes / 1e9:g} ({gigabytes(card.weights.bytes)} of weights "
            f"over {layout.tensor_parallel}: {gigabytes(card.weights.bytes / layout.tensor_parallel)} each)"
        )


def _declared(gpus: GpuNeeds) -> str:
    """Return the card's layouts as text, for the sentences of a verdict."""
    return ", ".join(map(str, gpus.layouts))


def kind_suffix(gpus: GpuNeeds) -> str:
    """Return `, compute capability ...` to append to a list of needs; empty if any kind of GPU will do."""
    kinds = " or ".join(gpus.compute_capabilities)
    return f", compute capability {kinds}" if kinds else ""


def gigabytes(count: float) -> str:
    """Return decimal gigabytes such as `80.1 GB`, rounded up to a tenth, so that no need is understated."""
    return f"{math.ceil(count / 1e8) / 10:g} GB"
