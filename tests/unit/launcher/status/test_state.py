"""The state file is replaced whole, read back as it was written, and said in a few words."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from launcher.engine.phases import Phase
from launcher.status import state
from launcher.status.state import State

SINCE = "2026-11-20T20:00:00.000Z"
LATER = datetime(2026, 11, 20, 20, 1, 3, tzinfo=UTC)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    """Every field survives, and no draft is left beside the file."""
    written = State(
        "a", Phase.LOADING, run=2, seconds={"starting": 1.5}, percent=40, problem="x", since=SINCE
    )
    state.write(tmp_path / "state.json", written)
    assert written == state.read(tmp_path / "state.json")
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (os.fsdecode(b"no /weights/\xff\xfe.json"), "no /weights/\\udcff\\udcfe.json"),
        ("\ud800 half a pair", "\\ud800 half a pair"),
        ("a\0b", "a\\x00b"),
        ("\x01" * 300_000, "\x01" * 65536),
        ("\U0001f600" * 300_000, "\U0001f600" * 16384),
        ("x" + "\u00e9" * 300_000, "x" + "\u00e9" * 32767),
    ],
)
def test_whatever_the_problem_is_the_state_can_be_read(tmp_path: Path, problem: str, told: str) -> None:
    """A path may have bytes that are no UTF-8, and the last words of a process be anything."""
    state.write(tmp_path / "state.json", State("a", Phase.STOPPING, problem=problem))
    found = state.read(tmp_path / "state.json")
    assert found is not None
    assert found.problem == told


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1, "slug": "a", "phase": "dancing"}'])
def test_a_foreign_file_is_no_state(tmp_path: Path, text: str) -> None:
    """The health check survives whatever lies in the state's place."""
    (tmp_path / "state.json").write_text(text)
    assert state.read(tmp_path / "state.json") is None


def test_no_file_is_no_state(tmp_path: Path) -> None:
    """A launcher that has not started yet has none."""
    assert state.read(tmp_path / "state.json") is None


def test_a_state_says_phase_share_age_and_problem() -> None:
    """What stands there fits one line of a health check."""
    loading = State("a", Phase.LOADING, percent=40, since=SINCE)
    blocked = State("a", Phase.WEIGHTS_CHECK, problem="x is missing", since=SINCE)
    assert loading.describe(LATER) == "loading 40 % for 63 s"
    assert blocked.describe(LATER) == "weights-check for 63 s: x is missing"
