"""Prometheus' rules and configuration, as far as they can be checked without running them."""

import re
from pathlib import Path

import yaml

from tests.contract.rule_cases import CASES, as_file
from tests.e2e.faster_rules import faster

ROOT = Path(__file__).resolve().parents[2]


PROMETHEUS = ROOT / "observability/prometheus"
RULES = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]


def test_the_committed_tests_of_rules_are_the_generated_ones() -> None:
    """`make rule-tests` writes them; nobody edits them by hand."""
    for name, every in {"rules_test": "1m", "rules_slow_test": "5m"}.items():
        assert yaml.safe_load((PROMETHEUS / f"{name}.yaml").read_text()) == as_file(every)


def test_every_alert_has_a_case_and_a_runbook() -> None:
    """One that fires and one that stays silent, and a row in docs/operations.md where its link leads."""
    assert {case.alert for case in CASES} == {alert["alert"] for alert in ALERTS}
    operations = (ROOT / "docs/operations.md").read_text()
    for alert in ALERTS:
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert page == "docs/operations.md"
        row = f'| <a id="{anchor}"></a>`{alert["alert"]}` ({alert["labels"]["severity"]}) |'
        assert row in operations, alert["alert"]


def test_faster_rules_have_every_window_divided() -> None:
    """Nothing but durations differs, and no window is shorter than three scrapes."""
    as_shipped, quick = (
        [rule for group in faster(by)["groups"] for rule in group["rules"]] for by in (1, 20)
    )
    durations = re.compile(r"\b\d+s\b|\* \d+ >=|, \d+\)\) < 0")
    for slow, fast in zip(as_shipped, quick, strict=True):
        assert durations.sub("", slow["expr"]) == durations.sub("", fast["expr"])
        assert int(fast.get("for", "0s")[:-1]) == round(int(slow.get("for", "0s")[:-1]) / 20)
        assert all(int(found) >= 15 for found in re.findall(r"\[(\d+)s", fast["expr"]))
    named = {rule["alert"]: rule["expr"] for rule in quick if "alert" in rule}
    assert "* 180 >= 5" in named["ErrorBudgetBurnsFast"]
    assert "[1080s], 4320)) < 0" in named["DiskFills"]
    assert "offset 15s" in named["EngineHangs"]


def test_rules_name_our_metrics_as_they_are_documented() -> None:
    """vLLM's and DCGM's are held against a live scrape."""
    documented = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    named = set(
        re.findall(r"\b((?:gateway|launcher|model_cache)_\w+)", " ".join(rule["expr"] for rule in RULES))
    )
    assert named
    assert {name.removesuffix("_bucket") for name in named} <= documented
