"""Where a worker's start-up stands, read from vLLM's own log lines. Pure.

The patterns match vLLM 0.32, its GPU and CPU runners alike. Every rank prints these lines and some come twice (a draft
model loads after the main one), so a start-up only ever moves forward. `warming` and `ready` come from no log line: the
launcher warms vLLM up once `/health` answers, and then it is ready.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Phase(StrEnum):
    """What the launcher and its vLLM are doing; a start-up passes those up to ready in this order."""

    WEIGHTS_CHECK = "weights-check"
    WAITING_FOR_GPUS = "waiting-for-gpus"
    STARTING = "starting"
    LOADING = "loading"
    COMPILING = "compiling"
    GRAPHS = "graphs"
    WARM_UP = "warm-up"
    WARMING = "warming"
    READY = "ready"
    BACK_OFF = "back-off"
    MISCONFIGURED = "misconfigured"
    STOPPING = "stopping"

    @property
    def is_start_up(self) -> bool:
        """Whether it is ready or before that."""
        return self in _START_UP


_START_UP = tuple(Phase)[: tuple(Phase).index(Phase.READY) + 1]

_SIGNS: tuple[tuple[Phase, re.Pattern[str]], ...] = (
    (Phase.LOADING, re.compile(r"Starting to load model |Loading model from scratch")),
    (Phase.LOADING, re.compile(r"oading .*\bshards: +\d+%|Loading safetensors using|Prefetching checkpoint")),
    (Phase.COMPILING, re.compile(r"Starting torch\.compile|for vLLM's torch\.compile")),
    (Phase.COMPILING, re.compile(r"Directly load AOT compilation|Warming up model for the compilation")),
    (Phase.COMPILING, re.compile(r"JIT kernel warmup starting")),
    (
        Phase.GRAPHS,
        re.compile(r"Profiling CUDA graph memory|Capturing (?:\S+ ){0,4}(?:CUDA graphs|cudagraph)"),
    ),
    (Phase.WARM_UP, re.compile(r"Graph capturing finished|init engine \(profile, create kv cache, warmup")),
)
_COMPILED_BEFORE = re.compile(r"Directly load (?:AOT compilation|the compiled graph)")
_COMPILED_NOW = re.compile(r"saved AOT compiled function to ")
_SHARDS = re.compile(r"oading .*\bshards: +(\d+)% Completed")


def phase_in(line: str) -> Phase | None:
    """The phase that this line of vLLM's log announces, if it announces one."""
    return next((phase for phase, sign in _SIGNS if sign.search(line)), None)


def percent_in(line: str) -> int | None:
    """How much of the weights vLLM says it has loaded, 0 to 100, if this line says so."""
    found = _SHARDS.search(line)
    return int(found[1]) if found else None


def cache_hit_in(line: str) -> bool | None:
    """Whether what was compiled was found in the caches, if this line says so."""
    if _COMPILED_NOW.search(line):
        return False
    return True if _COMPILED_BEFORE.search(line) else None


@dataclass(frozen=True)
class Timeline:
    """The phase now, since when, and how many seconds each phase before it took.

    `since` is on any monotonic clock of the caller's choice.
    """

    phase: Phase
    since: float
    seconds: Mapping[str, float] = field(default_factory=dict)

    def advance(self, phase: Phase, now: float) -> "Timeline":
        """Move on to a later phase of the start-up; itself if `phase` is this one or behind it."""
        if not self.phase.is_start_up or _START_UP.index(phase) <= _START_UP.index(self.phase):
            return self
        return self.enter(phase, now)

    def enter(self, phase: Phase, now: float) -> "Timeline":
        """Leave the present phase for `phase`, whichever it is."""
        spent = {**self.seconds, self.phase.value: round(now - self.since, 3)}
        return replace(self, phase=phase, since=now, seconds=spent)
