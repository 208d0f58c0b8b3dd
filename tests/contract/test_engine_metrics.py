"""The gateway and the launcher judge a worker's life by one definition."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_both_programs_have_the_same_definition() -> None:
    """They may not import each other, so each has the module; `cp` after a change to either."""
    ours = ROOT / "gateway/src/gateway/fleet/engine_metrics.py"
    theirs = ROOT / "docker/launcher/engine/engine_metrics.py"
    assert ours.read_bytes() == theirs.read_bytes(), f"cp {ours.relative_to(ROOT)} {theirs.relative_to(ROOT)}"
