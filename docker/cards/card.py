"""Reads one slug's card.yaml (and two sizes from its serve.yaml) and checks every fact, also those that others use.
Others call `load`; each private function checks one section for it, and raises CardError for the first wrong fact."""

import datetime
import re
from dataclasses import dataclass
from pathlib import Path

from cards import facts
from cards.facts import CardError, Facts
from cards.layout import Experts, Layout, Shape

_SLUG = r"[a-z0-9][a-z0-9-]*"
_VERSION = r"[0-9]{1,9}(\.[0-9]{1,9}){0,9}"
_BUILD = rf"{_VERSION}([a-z+.][\w.+]*)?"
VLLM_SHARE = 0.92  # vLLM's default of gpu-memory-utilization, of its class CacheConfig
# the facts that a pinned wheel may have
_PIN = ("version", "wheel", "sha256", "distribution", "commit", "third_party", "variants", "date")


@dataclass(frozen=True)
class Weights:
    """What a card says of the weights. `repo` is owner/name on the hub, `bytes` the size of the whole snapshot.
    `architectures` are the classes of vLLM that run it: the one in config.json, and a draft model's.
    `trust_remote_code`: the repository contains code, which is fetched and which vLLM runs."""

    repo: str
    format: str
    bytes: int
    licence: str
    architectures: tuple[str, ...]
    trust_remote_code: bool = False


@dataclass(frozen=True)
class GpuNeeds:
    """The GPUs that one worker needs: how many, the least memory of each, the oldest driver, and the layouts.
    `layouts[0]` is the one that is served. `compute_capabilities` are those that the recipe is for; empty: any."""

    count: int
    memory_bytes: int
    driver: str
    shape: Shape | None
    layouts: tuple[Layout, ...]
    layouts_because: str
    compute_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proof:
    """A run that was seen to work: when, with which vLLM, on which GPUs, and how it was done."""

    date: datetime.date
    vllm: str
    gpus: str
    how: str


@dataclass(frozen=True)
class Card:
    """The facts of a slug that this package uses; the others in card.yaml are only checked. `gpus` is None for a slug
    that runs on the CPU; `memory_share` is the part of each GPU's memory that vLLM takes; `context` is in tokens.
    `kv_offload_gib`: how much KV cache serve.yaml keeps in the host's memory, beyond that of the GPUs."""

    slug: str
    weights: Weights
    gpus: GpuNeeds | None
    context: int
    memory_share: float
    vllm: str
    proven: tuple[Proof, ...]
    not_proven: str
    kv_offload_gib: float = 0


def load(directory: Path, slug: str) -> Card:
    """Read the card of `slug` below `directory`. Raises CardError that names the file and the wrong fact."""
    known = sorted(path.parent.name for path in directory.glob("*/card.yaml"))
    if slug not in known:
        raise CardError(f"{slug!r} is no slug: {directory} has {', '.join(known) or 'none'}")
    card = facts.read(directory / slug / "card.yaml")
    if card.text("slug", _SLUG, "the directory's name") != slug:
        raise card.wrong("slug", f"the directory's name, {slug!r}")
    options = facts.read(directory / slug / "serve.yaml")
    return _card(
        card, options.share("gpu-memory-utilization", VLLM_SHARE), options.gibibytes("kv-offloading-size")
    )


def _card(card: Facts, memory_share: float, kv_offload_gib: float) -> Card:
    """Check every section of the card and return the facts that this package uses. Raises CardError."""
    card.only(
        "slug", "weights", "hardware", "serving", "progress", "pin", "candidate", "proven", "not_proven"
    )
    _progress(card)
    vllm = _pins(card.section("pin"))
    return Card(
        slug=card.text("slug"),
        weights=_weights(card.section("weights")),
        gpus=_hardware(card.section("hardware")),
        context=_serving(card.section("serving"), vllm),
        memory_share=memory_share,
        vllm=vllm + _candidate(card),
        proven=tuple(_proof(entry) for entry in card.sections("proven")),
        not_proven=card.text("not_proven") if "not_proven" in card else "",
        kv_offload_gib=kv_offload_gib,
    )


def _progress(card: Facts) -> None:
    """Check the section that only the gateway reads: a wrong fact shall be found before a start. Raises CardError."""
    if "progress" in card:
        progress = card.section("progress")
        progress.only("suspect_s", "down_s")
        _seconds(progress)
        suspect_s = progress.values.get("suspect_s", 60)  # both as the gateway takes them if not given
        down_s = progress.values.get("down_s", 180)
        if suspect_s > down_s:  # type: ignore[operator]  # whole numbers by now
            raise progress.wrong("suspect_s", f"at most down_s, {down_s}")


def _weights(weights: Facts) -> Weights:
    """Check the section `weights` and return it."""
    weights.only("repo", "format", "bytes", "licence", "architectures", "trust_remote_code")
    return Weights(
        repo=weights.text("repo", r"[\w.-]+/[\w.-]+", "owner/name"),
        format=weights.text("format"),
        bytes=weights.whole("bytes"),
        licence=weights.text("licence"),
        architectures=weights.texts("architectures", r"[A-Z]\w+", "a list of class names"),
        trust_remote_code="trust_remote_code" in weights and weights.flag("trust_remote_code"),
    )


def _hardware(hardware: Facts) -> GpuNeeds | None:
    """Check the section and return the GPUs that a worker needs; None for 0 GPUs, a slug that runs on the CPU."""
    if hardware.whole("gpus", 0) == 0:
        hardware.only("gpus", "cpu", "memory_bytes", "shm_bytes")
        hardware.text("cpu")
        hardware.whole("memory_bytes")
        hardware.whole("shm_bytes")
        return None
    hardware.only(
        "gpus",
        "gpu_memory_bytes",
        "compute_capabilities",
        "driver",
        "shape",
        "layouts",
        "layouts_because",
        "load_s",
    )
    _seconds(hardware.section("load_s"))
    shape = _shape(hardware.section("shape")) if "shape" in hardware else None
    return GpuNeeds(
        count=hardware.whole("gpus"),
        memory_bytes=hardware.whole("gpu_memory_bytes"),
        driver=hardware.text("driver", _VERSION, 'a driver version in quotes, such as "580"'),
        shape=shape,
        layouts=_layouts(hardware, shape),
        layouts_because=hardware.text("layouts_because"),
        compute_capabilities=_compute_capabilities(hardware),
    )


def _compute_capabilities(hardware: Facts) -> tuple[str, ...]:
    """Return the compute capabilities that the recipe is for, which is an optional fact; empty: any GPU will do."""
    if "compute_capabilities" not in hardware:
        return ()
    wanted = 'a list of compute capabilities in quotes, such as ["9.0"]'
    return hardware.texts("compute_capabilities", r"[1-9][0-9]*\.[0-9]", wanted)


def _seconds(times: Facts) -> None:
    """Check that every fact of the section (`load_s`, `progress`) is a whole number of seconds."""
    for name in times.values:
        times.whole(name)


def _shape(shape: Facts) -> Shape:
    """Check the section `hardware.shape`, by which layouts are judged, and return it."""
    shape.only("heads", "kv_heads", "experts")
    experts = _experts(shape.section("experts")) if "experts" in shape else None
    return Shape(shape.whole("heads"), shape.whole("kv_heads"), experts)


def _experts(experts: Facts) -> Experts:
    """Check the section `hardware.shape.experts` and return it; without `block` a part may have any width."""
    experts.only("count", "intermediate", "block")
    block = experts.whole("block") if "block" in experts else 1
    return Experts(experts.whole("count"), experts.whole("intermediate"), block)


def _layouts(hardware: Facts, shape: Shape | None) -> tuple[Layout, ...]:
    """Return the declared layouts. Raises CardError if the shape forbids one, or `gpus` are too few for the first."""
    layouts = tuple(_layout(entry) for entry in hardware.sections("layouts"))
    if not layouts or layouts[0].tensor_parallel > hardware.whole("gpus"):
        raise hardware.wrong("layouts", f"a list, first the layout on at most {hardware.whole('gpus')} GPUs")
    for at, layout in enumerate(layouts):
        if reason := next(shape.objections(layout), "") if shape else "":
            raise CardError(f"{hardware.file}: hardware.layouts[{at}] is {layout}, but {reason}")
    return layouts


def _layout(layout: Facts) -> Layout:
    """Check one entry of `hardware.layouts` and return it."""
    layout.only("tensor_parallel", "expert_parallel")
    return Layout(layout.whole("tensor_parallel"), layout.flag("expert_parallel"))


def _serving(serving: Facts, vllm: str) -> int:
    """Check the section, also against vLLM's pinned version, and return the context that is served, in tokens."""
    serving.only(
        "context", "model_context", "parsers", "sampling", "images", "media_domains", "vllm_minimum", "warms"
    )
    if "media_domains" in serving:
        serving.texts("media_domains", r"[a-z0-9.-]+", "a list of host names")
    context = serving.whole("context")
    least = serving.text("vllm_minimum", _VERSION, "a version in quotes")
    if context > serving.whole("model_context"):
        raise serving.wrong("context", f"at most model_context, {serving.whole('model_context')}")
    if version(vllm) < version(least):
        raise serving.wrong("vllm_minimum", f"at most the pinned version, {vllm}")
    parsers = serving.section("parsers")
    parsers.only("reasoning", "tools")
    for name in parsers.values:
        parsers.text(name)
    _warms(serving, parsers)
    return context


def _warms(serving: Facts, parsers: Facts) -> None:
    """Check that a worker is warmed up (`LAUNCHER_WARMS`) only with what its parsers and images allow."""
    if "warms" in serving:
        can = [
            "text",
            *(["tools"] if "tools" in parsers else []),
            *(["images"] if "images" in serving else []),
        ]
        warms = serving.texts("warms", r"text|tools|images", "a list of text, tools, images")
        if not set(warms) <= set(can):
            raise serving.wrong("warms", f"some of {', '.join(can)}, as its parsers and images allow")


def _pins(pins: Facts) -> str:
    """Check the pins and return vLLM's pinned version. The package `pins` compares the wheels' names with versions."""
    pins.only("vllm", "torch")
    for part in (pins.section("vllm"), pins.section("torch")):
        part.only(*_PIN)
        part.text("version", _BUILD, "a version in quotes")
        part.text("wheel", r"\S+\.whl", "a wheel's file name")
        part.text("sha256", r"[0-9a-f]{64}", "64 lower-case hexadecimal digits")
    vllm = pins.section("vllm")
    vllm.text("commit", r"[0-9a-f]{9,40}", "9 to 40 lower-case hexadecimal digits in quotes")
    return vllm.text("version")


def _candidate(card: Facts) -> str:
    """Return a remark on the candidate for the next pin, to append to vLLM's version; empty if there is none."""
    if "candidate" not in card:
        return ""
    candidate = card.section("candidate")
    candidate.only("commit", "verified")
    commit = candidate.text("commit", r"[0-9a-f]{40}", "40 lower-case hexadecimal digits in quotes")
    if candidate.flag("verified"):
        raise candidate.wrong("verified", "false: a verified candidate becomes the pin")
    return f" (candidate {commit[:9]}, not verified)"


def _proof(proof: Facts) -> Proof:
    """Check one entry of `proven` and return it; a run on the CPU names no GPUs. Raises CardError."""
    proof.only("date", "vllm", "gpus", "how")
    date = proof.values.get("date")
    if not isinstance(date, datetime.date):
        raise proof.wrong("date", "a date such as 2026-11-20")
    gpus = proof.text("gpus") if "gpus" in proof else ""
    return Proof(date, proof.text("vllm"), gpus, proof.text("how"))


def version(text: str) -> tuple[int, ...]:
    """Return the numbers that a version (vLLM's, a driver's) begins with, to compare by, without a nightly's suffix."""
    return tuple(int(number) for number in re.split(r"[^\d.]", text, maxsplit=1)[0].split(".") if number)
