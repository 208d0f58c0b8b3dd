"""Phases are read from vLLM 0.32's own words and only ever move forward during a start-up."""

from __future__ import annotations

import pytest

from launcher.engine.phases import Phase, Timeline, cache_hit_in, percent_in, phase_in

_CORE = "(EngineCore pid=87) INFO 11-20 20:00:00 "


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        (_CORE + "[cpu_model_runner.py:68] Starting to load model /weights/models/o/n/d...", Phase.LOADING),
        (_CORE + "[model_runner.py:392] Loading model from scratch...", Phase.LOADING),
        ("Loading safetensors checkpoint shards:   0% Completed | 0/44 [00:00<?, ?it/s]", Phase.LOADING),
        ("Multi-thread loading shards:  50% Completed | 22/44 [00:10<00:10, 2.0it/s]", Phase.LOADING),
        (_CORE + "[backends.py:1104] Using cache directory: /c for vLLM's torch.compile", Phase.COMPILING),
        (_CORE + "[monitor.py:40] [eagle_head] Starting torch.compile", Phase.COMPILING),
        (_CORE + "[decorators.py:319] Directly load AOT compilation from path /c/x", Phase.COMPILING),
        (_CORE + "[cpu_model_runner.py:87] Warming up model for the compilation...", Phase.COMPILING),
        (_CORE + "[kernel_warmup.py:176] JIT kernel warmup starting.", Phase.COMPILING),
        (_CORE + "[gpu_model_runner.py:6369] Profiling CUDA graph memory: PIECEWISE=51", Phase.GRAPHS),
        ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  12%|#2  | 6/51", Phase.GRAPHS),
        ("Capturing multi-module MTP CUDA graphs: 100%|####| 8/8", Phase.GRAPHS),
        ("INFO [encoder_cudagraph.py:301] Capturing encoder cudagraph for budget=1, max", Phase.GRAPHS),
        (
            _CORE + "[gpu_model_runner.py:6581] Graph capturing finished in 21 secs, took 0.5 GiB",
            Phase.VLLM_WARM,
        ),
        (
            _CORE + "[core.py:402] init engine (profile, create kv cache, warmup model) took 9 s",
            Phase.VLLM_WARM,
        ),
        (_CORE + "[gpu_worker.py:759] Available KV cache memory: 90.1 GiB", None),
        ('INFO:     127.0.0.1:50000 - "GET /health HTTP/1.1" 200 OK', None),
    ],
)
def test_a_line_announces_its_phase(line: str, phase: Phase | None) -> None:
    """Lines of the GPU runners, the CPU runner and the progress bars; other lines announce nothing."""
    assert phase == phase_in(line)


def test_the_loaded_share_is_read_from_the_shards_bar() -> None:
    """Only the bar over checkpoint shards counts, not any other percentage."""
    assert percent_in("Loading safetensors checkpoint shards:  45% Completed | 20/44 [00:09<00:11]") == 45
    assert percent_in("Capturing CUDA graphs (decode, FULL):  45%|####  | 20/44") is None


def test_each_phase_knows_what_the_ones_before_it_took() -> None:
    """Durations are the differences of the clock, in seconds, and passed phases stay out."""
    timeline = Timeline(Phase.WEIGHTS_CHECK, 100.0)
    timeline = timeline.advance(Phase.STARTING, 100.5).advance(Phase.LOADING, 104.0)
    timeline = timeline.advance(Phase.VLLM_WARM, 164.0).advance(Phase.READY, 165.25)
    assert timeline.seconds == {"weights-check": 0.5, "starting": 3.5, "loading": 60.0, "warm-up": 1.25}
    assert (timeline.phase, timeline.since) == (Phase.READY, 165.25)


def test_a_start_up_never_goes_back() -> None:
    """A draft model that loads after the compilation of the main one changes nothing."""
    compiling = Timeline(Phase.COMPILING, 7.0)
    assert compiling is compiling.advance(Phase.LOADING, 9.0)
    assert compiling is compiling.advance(Phase.COMPILING, 9.0)


def test_a_late_line_does_not_revive_a_run_that_is_over() -> None:
    """Once stopping, backing off or misconfigured, the start-up's words have no effect."""
    stopping = Timeline(Phase.LOADING, 1.0).enter(Phase.STOPPING, 2.0)
    assert stopping is stopping.advance(Phase.READY, 3.0)


def test_the_start_up_is_the_phases_up_to_ready() -> None:
    """The state file's order of phases is part of the contract with its readers."""
    checks, vllm = (
        ["weights-check", "waiting-for-gpus"],
        ["starting", "loading", "compiling", "graphs", "warm-up"],
    )
    assert [*checks, *vllm, "warming", "ready"] == [phase.value for phase in Phase if phase.is_up_to_ready]


@pytest.mark.parametrize(
    ("line", "hit"),
    [
        (_CORE + "[decorators.py:319] Directly load AOT compilation from path /c/x", True),
        (_CORE + "[backends.py:296] Directly load the compiled graph(s) for compile range (1, 8192)", True),
        (_CORE + "[decorators.py:708] saved AOT compiled function to /c/x/rank_0_0/model", False),
        (_CORE + "[monitor.py:53] torch.compile took 17.68 s in total", None),
    ],
)
def test_whether_the_caches_had_it(line: str, hit: bool | None) -> None:
    assert cache_hit_in(line) is hit
