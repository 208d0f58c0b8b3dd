"""Dashboards as far as they can be checked without running them: made by code, complete in words, right by design."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability.boards import BOARDS, thresholds
from observability.boards.__main__ import as_json

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "observability/grafana/dashboards"
SOURCE = yaml.safe_load((ROOT / "observability/grafana/provisioning/datasources/prometheus.yaml").read_text())
MADE = {f"{board.uid.removeprefix('octet-')}.json": as_json(board) for board in BOARDS}
GROUPS = yaml.safe_load((ROOT / "observability/prometheus/rules.yaml").read_text())["groups"]
RULES = {rule.get("record") or rule["alert"]: rule["expr"] for group in GROUPS for rule in group["rules"]}
UNIT = re.compile(
    r"\((?:.*, )?(s|a second|bytes|bytes/s|°C|W|Hz|tokens|times the allowed pace|preemptions a second)\)$"
)
COUNTED = re.compile(r"^(?:Requests|Errors|Answers|Tokens|Generated tokens|Starts|Cores|Open files)\b")


def panels(text: str) -> list[Any]:
    """Without the headings."""
    return [panel for panel in json.loads(text)["panels"] if panel["type"] != "row"]


EVERY = {name: panels(text) for name, text in MADE.items()}
EXPRESSIONS = [target["expr"] for found in EVERY.values() for panel in found for target in panel["targets"]]
every_board = pytest.mark.parametrize("name", EVERY)


def test_the_committed_dashboards_are_the_generated_ones() -> None:
    """`make dashboards` writes them; nobody edits them by hand, and none is left over."""
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == MADE


def test_uids_are_fixed() -> None:
    """Links and bookmarks lead to them."""
    names = ["fleet", "model", "gateway", "gpus", "starts", "tenants"]
    assert [board.uid for board in BOARDS] == [f"octet-{name}" for name in names]


@every_board
def test_panels_say_what_they_show_and_what_to_do(name: str) -> None:
    """A title that is a question or a quantity with its unit, and what to do when it is bad; it asks our Prometheus."""
    uids = {source["uid"] for source in SOURCE["datasources"]}
    for panel in EVERY[name]:
        title = panel["title"]
        assert title.endswith("?") or UNIT.search(title) or COUNTED.search(title), title
        assert len(panel["description"].split()) >= 8, title
        assert panel["targets"], title
        assert {target["datasource"]["uid"] for target in panel["targets"]} <= uids, title


@every_board
def test_links_lead_to_dashboards_that_there_are(name: str) -> None:
    """With the time and the model that were looked at."""
    links = [link for panel in EVERY[name] for link in panel["links"]]
    assert links
    assert {link["url"].removeprefix("/d/") for link in links} <= {board.uid for board in BOARDS}
    assert all(link["keepTime"] and link["includeVars"] for link in links)


@every_board
def test_panels_have_a_place_and_a_number_of_their_own(name: str) -> None:
    """None lies over another, none leaves the 24 columns."""
    taken: set[tuple[int, int]] = set()
    every = json.loads(MADE[name])["panels"]
    for panel in every:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in every}) == len(every)


def test_what_spans_replicas_is_right() -> None:
    """Quantiles come from buckets that are added first; no average of averages; counters only by their growth."""
    for expression in EXPRESSIONS:
        assert "avg(" not in expression
        assert "_sum" not in expression
        for inner in re.findall(r"histogram_quantile\([\d.]+, (.{12})", expression):
            assert inner.startswith("sum by (le"), expression
        counters = re.findall(r"[\w:]+_total\b(?!\{[^}]*\}?\[|\[)", expression)
        assert all(counter.startswith(("launcher_", "model_cache_")) for counter in counters), expression


def test_what_is_recorded_is_recorded() -> None:
    """Names with a colon that are not vLLM's are recording rules."""
    used = set(re.findall(r"\b(?:model|slug):[\w:]+", " ".join(EXPRESSIONS)))
    assert used
    assert used <= set(RULES)


@pytest.mark.parametrize(
    ("alert", "threshold"),
    [
        ("ErrorBudgetLeaks", thresholds.ERROR_BUDGET),
        ("AnswersBreakOff", thresholds.BROKEN),
        ("TimeToFirstTokenOverTarget", thresholds.TTFT_P95_S),
        ("QueueGrows", thresholds.QUEUE_WAIT_S),
        ("KVCacheFull", thresholds.KV_USE),
        ("Preemptions", thresholds.PREEMPTIONS_PER_S),
        ("GatewaySaturated", thresholds.LOOP_LAG_P99_S),
        ("KeyBudgetNear", thresholds.KEY_BUDGET),
        ("KeyBudgetNearlyUsed", thresholds.KEY_BUDGET_RED),
        ("GPUHot", thresholds.GPU_CELSIUS),
        ("GPUHot", thresholds.GPU_MEMORY_CELSIUS),
    ],
)
def test_dashboards_have_the_thresholds_of_the_alerts(alert: str, threshold: float) -> None:
    """What a panel shows in red is what somebody is told."""
    assert re.search(rf"> {threshold:g}(?![\d.])", RULES[alert])


def test_our_metrics_are_documented() -> None:
    documented = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    used = set(re.findall(r"\b((?:gateway|launcher|model_cache)_\w+)", " ".join(EXPRESSIONS)))
    assert len(used) > 30
    assert {name.removesuffix("_bucket") for name in used} <= documented
