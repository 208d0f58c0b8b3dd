"""Earlier starts are kept with the caches, and the present one is estimated by them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.engine.phases import Phase
from launcher.status import history

USUAL = {"starting": 20.0, "loading": 100.0, "compiling": 40.0, "warm-up": 10.0}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "starts.json"


def test_the_last_starts_are_kept(file: Path) -> None:
    """Five of them; a phase that waits for others is no measure of the next start."""
    for seconds in range(7):
        history.add(
            file, {"loading": float(seconds), "waiting-for-gpus": 900.0, "weights-check": 700.0, "ready": 3.0}
        )
    assert history.read(file) == tuple({"loading": float(seconds)} for seconds in range(2, 7))
    assert [path.name for path in file.parent.iterdir()] == ["starts.json"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[7]", '[{"dancing": 1}]', '[{"loading": "x"}]', '{"loading": 1}']
)
def test_a_foreign_file_is_no_history(file: Path, text: str) -> None:
    """And the next start makes it ours."""
    file.write_text(text)
    with pytest.raises(ValueError, match=r"."):
        history.read(file)
    history.add(file, {"loading": 1.0})
    assert json.loads(file.read_text()) == [{"loading": 1.0}]


def test_usual_is_the_median_and_a_phase_may_be_missing() -> None:
    starts = [{"loading": 10.0, "compiling": 60.0}, {"loading": 12.0}, {"loading": 90.0}]
    assert history.usual(starts) == {"loading": 12.0, "compiling": 0.0}
    assert history.usual([]) == {}


@pytest.mark.parametrize(
    ("phase", "spent_s", "percent", "left_s"),
    [
        (Phase.STARTING, 5.0, None, 165.0),
        (Phase.LOADING, 30.0, None, 120.0),
        (Phase.LOADING, 30.0, 20, 170.0),  # slower than usual, and vLLM tells
        (Phase.LOADING, 30.0, 2, 120.0),  # one file is no measure
        (Phase.LOADING, 30.0, 0, 120.0),
        (Phase.LOADING, 500.0, None, 50.0),  # overdue: what comes after it is what is known
        (Phase.VLLM_WARM, 4.0, None, 6.0),
        (Phase.READY, 4.0, None, None),
        (Phase.BACK_OFF, 4.0, None, None),
        (Phase.WAITING_FOR_GPUS, 4.0, None, None),
    ],
)
def test_what_is_left(phase: Phase, spent_s: float, percent: int | None, left_s: float | None) -> None:
    assert history.left_s(USUAL, phase, spent_s, percent) == left_s


def test_nothing_is_said_without_an_earlier_start() -> None:
    assert history.left_s({}, Phase.LOADING, 30.0, 50) is None
