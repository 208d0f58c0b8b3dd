"""Progress turns vLLM's lines into a state file and one log line a phase."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from launcher.engine.phases import Phase
from launcher.status import state
from launcher.status.logs import Log
from launcher.status.progress import Progress


class Bench:
    """A progress with a clock to turn by hand, its state file and its log."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.file = folder / "state.json"
        self.out = io.BytesIO()
        self.progress = Progress(Log("a", self.out), self.file, folder / "starts.json", lambda: self.now)
        self.progress.begin()

    def observe(self, now: float, line: str) -> None:
        """A line of vLLM at a time."""
        self.now = now
        self.progress.observe(line)

    def log(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A run that has just begun at second 0."""
    return Bench(tmp_path)


def test_each_phase_is_logged_once_with_the_length_of_the_one_before(bench: Bench) -> None:
    """Eight ranks print the same line; the log says it once."""
    bench.progress.advance(Phase.STARTING)
    for _ in range(8):
        bench.observe(4.0, "INFO Starting to load model /weights/x...")
    bench.now = 10.0
    bench.progress.advance(Phase.READY)
    phases = [(line["phase"], line["previous"], line["previous_s"]) for line in bench.log()]
    expected = [("starting", "weights-check", 0.0), ("loading", "starting", 4.0), ("ready", "loading", 6.0)]
    assert expected == phases
    assert bench.log()[-1]["start_s"] == 10.0


def test_the_state_file_follows_the_loaded_share(bench: Bench) -> None:
    """The bar over the shards is in the state; the next phase clears it."""
    bench.progress.advance(Phase.STARTING)
    bench.observe(1.0, "Starting to load model x")
    bench.observe(2.0, "Loading safetensors checkpoint shards:  50% Completed | 1/2")
    seen = state.read(bench.file)
    assert seen is not None
    assert (seen.phase, seen.percent, seen.run) == (Phase.LOADING, 50, 1)
    bench.observe(2.5, "Loading safetensors checkpoint shards:   2% Completed | 1/44")  # the draft's own bar
    seen = state.read(bench.file)
    assert seen is not None
    assert seen.percent == 50
    bench.observe(3.0, "Starting torch.compile")
    seen = state.read(bench.file)
    assert seen is not None
    assert (seen.phase, seen.percent) == (Phase.COMPILING, None)


def test_readiness_is_measured_and_survives_the_end_of_the_run(bench: Bench) -> None:
    """The back-off needs to know how long a run was ready, also once it has ended."""
    assert not bench.progress.was_ready
    bench.progress.advance(Phase.READY)
    bench.now = 700.0
    bench.progress.enter(Phase.STOPPING)
    bench.now = 800.0
    assert bench.progress.was_ready
    assert bench.progress.ready_s == 700.0


def test_a_new_run_starts_from_nothing(bench: Bench) -> None:
    """Neither readiness nor durations of the run before count."""
    bench.progress.advance(Phase.READY)
    bench.progress.begin()
    assert not bench.progress.was_ready
    assert bench.progress.ready_s == 0.0
    seen = state.read(bench.file)
    assert seen is not None
    assert (seen.phase, seen.run, seen.seconds) == (Phase.WEIGHTS_CHECK, 2, {})


def test_a_state_that_cannot_be_written_is_logged_and_survived(tmp_path: Path) -> None:
    """A vanished state folder must not end a serving vLLM."""
    bench = Bench(tmp_path)
    bench.file.unlink()
    tmp_path.rmdir()
    bench.progress.advance(Phase.STARTING)
    assert [line["event"] for line in bench.log()] == ["state-not-written", "phase"]
