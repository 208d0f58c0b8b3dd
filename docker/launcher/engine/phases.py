"""Reads from vLLM's own log lines which phase a start-up is in, and keeps the time of each. Pure. The patterns match
vLLM 0.32, its GPU and CPU runners alike. Every rank prints these lines and some come twice (a draft model loads after
the main one), so a start-up only ever moves forward. `warming` and `ready` come from no log line: the launcher warms
vLLM up once `/health` answers, and then it is ready."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Phase(StrEnum):
    """What the launcher and its vLLM are doing. Those up to READY are a start-up's, in this order; it may skip some."""

    WEIGHTS_CHECK = "weights-check"
    WAITING_FOR_GPUS = "waiting-for-gpus"
    STARTING = "starting"
    LOADING = "loading"
    COMPILING = "compiling"
    GRAPHS = "graphs"
    VLLM_WARM = "warm-up"  # vLLM's own, by its log
    WARMING = "warming"  # the launcher's requests, before clients are let in
    READY = "ready"
    BACK_OFF = "back-off"
    MISCONFIGURED = "misconfigured"
    STOPPING = "stopping"

    @property
    def is_up_to_ready(self) -> bool:
        """Return whether this is a start-up's phase, READY included; `Timeline.advance` moves on only from these."""
        return self in _UP_TO_READY


_UP_TO_READY = tuple(Phase)[: tuple(Phase).index(Phase.READY) + 1]

_LOG_PATTERNS: tuple[tuple[Phase, re.Pattern[str]], ...] = (
    (Phase.LOADING, re.compile(r"Starting to load model |Loading model from scratch")),
    (Phase.LOADING, re.compile(r"oading .*\bshards: +\d+%|Loading safetensors using|Prefetching checkpoint")),
    (Phase.COMPILING, re.compile(r"Starting torch\.compile|for vLLM's torch\.compile")),
    (Phase.COMPILING, re.compile(r"Directly load AOT compilation|Warming up model for the compilation")),
    (Phase.COMPILING, re.compile(r"JIT kernel warmup starting")),
    (
        Phase.GRAPHS,
        re.compile(r"Profiling CUDA graph memory|Capturing (?:\S+ ){0,4}(?:CUDA graphs|cudagraph)"),
    ),
    (Phase.VLLM_WARM, re.compile(r"Graph capturing finished|init engine \(profile, create kv cache, warmup")),
)
_COMPILED_BEFORE = re.compile(r"Directly load (?:AOT compilation|the compiled graph)")
_COMPILED_NOW = re.compile(r"saved AOT compiled function to ")
_SHARDS = re.compile(r"oading .*\bshards: +(\d+)% Completed")


def phase_in(line: str) -> Phase | None:
    """Return the phase that this line of vLLM's log announces; None if it announces none."""
    return next((phase for phase, sign in _LOG_PATTERNS if sign.search(line)), None)


def percent_in(line: str) -> int | None:
    """Return how much of the weights is loaded, 0 to 100, if this line of vLLM's log says so; else None."""
    found = _SHARDS.search(line)
    return int(found[1]) if found else None


def cache_hit_in(line: str) -> bool | None:
    """Return whether compiled code came from the caches, if this line of vLLM's log says so; else None."""
    if _COMPILED_NOW.search(line):
        return False
    return True if _COMPILED_BEFORE.search(line) else None


@dataclass(frozen=True)
class Timeline:
    """The current phase, since when, and the seconds that each earlier phase took. `Progress` keeps one for each run.
    `since` is a time on the caller's monotonic clock."""

    phase: Phase
    since: float
    seconds: Mapping[str, float] = field(default_factory=dict)

    def advance(self, phase: Phase, now: float) -> "Timeline":
        """Return the timeline moved on to `phase`, one up to READY; itself if it is that far, or in no start-up."""
        if not self.phase.is_up_to_ready or _UP_TO_READY.index(phase) <= _UP_TO_READY.index(self.phase):
            return self
        return self.enter(phase, now)

    def enter(self, phase: Phase, now: float) -> "Timeline":
        """Return the timeline with `phase` as the current one, whichever it is; the time of the one before is added."""
        spent = {**self.seconds, self.phase.value: round(now - self.since, 3)}
        return replace(self, phase=phase, since=now, seconds=spent)
