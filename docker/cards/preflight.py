"""Compares a host with a card (`cards host`): a sentence for each thing that keeps the model from running. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence

from cards.card import Card, GpuNeeds, version
from cards.host import Gpu
from cards.memory import Memory
from cards.validation import gigabytes
from cards.volume import Disk

GIB = 1 << 30
PROCESS_BYTES = (
    6_000_000_000  # of the host's memory that vLLM's process for one GPU takes, and a part of the others
)


def of_gpus(card: Card, seen: Sequence[Gpu]) -> Iterator[str]:
    """Yield what is wrong with the GPUs that the container sees; nothing for a slug that runs on the CPU."""
    if card.gpus is None:
        return
    if len(seen) < card.gpus.count:
        yield (
            f"{card.slug} takes {card.gpus.count} GPUs and this container sees {len(seen)}: look for the missing "
            "ones with nvidia-smi on the host, or take a larger host"
        )
    yield from _driver(card.gpus, seen)
    yield from _fabric(seen)
    yield from _unsuitable(card, card.gpus, seen)


def of_disk(card: Card, disk: Disk) -> Iterator[str]:
    """Yield that the weights volume is too small for what is missing; nothing if the snapshot is there already."""
    missing = max(0, card.weights.bytes - disk.staged_bytes)
    need = missing + missing // 20  # 5 % for the file system's own blocks, as the weights job asks
    if not disk.complete and disk.free_bytes < need:
        yield (
            f"the weights volume has {gigabytes(disk.free_bytes)} free and {card.weights.repo} needs about "
            f"{gigabytes(need)} more: free space there, or set WEIGHTS_DIR to a larger file system"
        )


def of_memory(card: Card, kv_offload_gib: float, memory: Memory, seen: Sequence[Gpu]) -> Iterator[str]:
    """Yield that the host has less memory than the KV cache beyond the GPUs takes, with the size that would fit. Where
    the slug runs, its own worker has that memory already, so that only the total is compared."""
    if not kv_offload_gib or card.gpus is None:
        return
    runs = any(gpu.holder == card.slug for gpu in seen)
    free = memory.total_bytes if runs else memory.available_bytes
    room = free - card.gpus.count * PROCESS_BYTES
    if kv_offload_gib * GIB > room:
        name = f"{card.slug.upper().replace('-', '_')}_KV_OFFLOAD_GIB"
        fits = f"set {name}={room // GIB}" if room >= GIB else f"leave {name} empty"
        yield (
            f"{kv_offload_gib:g} GiB of KV cache in the host's memory do not fit: {free / GIB:.0f} of "
            f"{memory.total_bytes / GIB:.0f} GiB are {'there' if runs else 'free'}, and vLLM's processes need "
            f"{card.gpus.count * PROCESS_BYTES / GIB:.0f} GiB of them; {fits}, or stop what uses the memory"
        )


def _driver(gpus: GpuNeeds, seen: Sequence[Gpu]) -> Iterator[str]:
    """Yield that the driver is too old for the card, if it is; one that is no version counts as too old."""
    old = sorted({gpu.driver for gpu in seen if not _at_least(gpu.driver, gpus.driver)})
    if old:
        yield (
            f"the driver is {', '.join(old)} and {gpus.driver} or newer is needed: update NVIDIA's driver on the host"
        )


def _at_least(driver: str, least: str) -> bool:
    """Return whether the driver is at least that of the card; False for what is no version."""
    return bool(re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,9}", driver)) and version(driver) >= version(least)


def _fabric(seen: Sequence[Gpu]) -> Iterator[str]:
    """Yield which GPUs' NVSwitch fabric is not up; an empty state means that there is none, which is fine."""
    for state in sorted({gpu.fabric for gpu in seen} - {"", "Completed"}):
        yield (
            f"the NVSwitch fabric of {_indexes(gpu for gpu in seen if gpu.fabric == state)} is {state!r}, so CUDA "
            "would not start (error 802): wait, or restart nvidia-fabricmanager on the host"
        )


def _unsuitable(card: Card, gpus: GpuNeeds, seen: Sequence[Gpu]) -> Iterator[str]:
    """Yield what is wrong with GPUs if too few others are suitable and free; those the slug itself holds are free."""
    others = [gpu for gpu in seen if _is_of_another_kind(gpus, gpu)]
    meant = [gpu for gpu in seen if gpu not in others]
    small = [gpu for gpu in meant if gpu.total_bytes < gpus.memory_bytes]
    in_use = [gpu for gpu in meant if gpu not in small and gpu.holder != card.slug and _is_in_use(card, gpu)]
    if len(meant) - len(small) - len(in_use) >= gpus.count:
        return
    if others:
        yield (
            f"{_indexes(others)} has compute capability {_kinds(others)} and the recipe of {card.slug} is for "
            f"{' or '.join(gpus.compute_capabilities)}: take a host with such GPUs"
        )
    if small:
        yield (
            f"{_indexes(small)} has {_sizes(gpu.total_bytes for gpu in small)} of memory and {card.slug} takes "
            f"{gigabytes(gpus.memory_bytes)} or more: take a host with larger GPUs"
        )
    for holder in sorted({gpu.holder for gpu in in_use}):
        yield _in_use_by(card, holder, [gpu for gpu in in_use if gpu.holder == holder])


def _is_of_another_kind(gpus: GpuNeeds, gpu: Gpu) -> bool:
    """Return whether the GPU is of a kind that the card does not name; one of unknown kind passes."""
    kinds = gpus.compute_capabilities
    return bool(kinds and gpu.compute_capability) and gpu.compute_capability not in kinds


def _kinds(gpus: Iterable[Gpu]) -> str:
    """Return the compute capabilities of these GPUs, each once, for a sentence."""
    return ", ".join(dict.fromkeys(gpu.compute_capability for gpu in gpus))


def _is_in_use(card: Card, gpu: Gpu) -> bool:
    """Return whether a worker holds the GPU, or some process leaves less memory free than vLLM will take."""
    return bool(gpu.holder) or gpu.free_bytes < card.memory_share * gpu.total_bytes


def _in_use_by(card: Card, holder: str, in_use: Sequence[Gpu]) -> str:
    """Return what uses these GPUs and how to stop it: another worker, or (`holder` empty) an unknown process."""
    if holder:
        return f"{_indexes(in_use)} is held by {holder}: docker compose stop {holder}"
    return (
        f"{_indexes(in_use)} has {_sizes(gpu.free_bytes for gpu in in_use)} of memory free and vLLM takes "
        f"{_sizes(card.memory_share * gpu.total_bytes for gpu in in_use)}: stop what uses it, which nvidia-smi "
        "on the host lists"
    )


def _indexes(gpus: Iterable[Gpu]) -> str:
    """Return these GPUs' indexes, for the beginning of a sentence: `GPU 0, 3`."""
    return f"GPU {', '.join(str(gpu.index) for gpu in gpus)}"


def _sizes(counts: Iterable[float]) -> str:
    """Return sizes (bytes) in gigabytes, each once, for a sentence."""
    return ", ".join(dict.fromkeys(map(gigabytes, counts)))
