"""`make bench` and `make bench-throughput` on real vLLM with the twin: figures both ways, and clear refusals."""

import json
import re
from pathlib import Path

import pytest

from tests.e2e.conftest import SLUG
from tests.e2e.stack import ROOT, Stack
from tests.e2e.test_examples import run

pytestmark = pytest.mark.full
SMALL = ["--input-len", "32", "--output-len", "8"]


def test_both_ways_side_by_side(stack: Stack) -> None:
    """A round each, every request answered; a table, a plot and the figures behind them."""
    done = run(ROOT / "scripts/bench", SLUG, "--concurrency", "2", "--rounds", "1", "--prompts", "2", *SMALL)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(out(".json").read_text())
    asked = [(one["concurrency"], one["way"], one["completed"]) for one in record["loads"]]
    assert asked == [(2, "direct", 4), (2, "gateway", 4)]
    assert len(re.findall(r"^2 +(?:direct|gateway) ", done.stdout, re.MULTILINE)) == 2
    assert len(re.findall(r"^2 +1 +[\d.]+ ", done.stdout, re.MULTILINE)) == 1
    assert out(".svg").read_text().count("<rect") == 6


def out(suffix: str) -> Path:
    return ROOT / "out" / f"bench-{SLUG}{suffix}"


def test_a_model_that_does_not_run_is_refused(stack: Stack) -> None:
    """With the command that starts it, and for a slug that is none with those that are."""
    done = run(ROOT / "scripts/bench", "step3p7-flash")
    assert (done.returncode, "docker compose up -d step3p7-flash" in done.stderr) == (2, True)
    assert run(ROOT / "scripts/bench", "nothing").returncode == 2


def test_throughput_wants_the_gpus_alone(stack: Stack) -> None:
    """While the worker runs it is refused; with the worker stopped vLLM tells requests and tokens a second."""
    refused = run(ROOT / "scripts/bench-throughput", SLUG)
    assert (refused.returncode, f"docker compose stop {SLUG}" in refused.stderr) == (2, True)
    stack.compose("stop", SLUG)
    try:
        done = run(ROOT / "scripts/bench-throughput", SLUG, *SMALL, "--num-prompts", "4")
    finally:
        stack.compose("start", SLUG)
        stack.wait_ready()
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"Throughput: [\d.]+ requests/s, [\d.]+ total tokens/s", done.stdout)
