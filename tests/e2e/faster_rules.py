"""Prometheus' rules as they are shipped, with every window and wait divided: a test need not wait an hour."""

import re
from typing import Any

import yaml

from tests.e2e.stack import ROOT

RULES = ROOT / "observability/prometheus/rules.yaml"
LEAST_RANGE_S = 15  # three scrapes: a rate needs two samples, and one may be late
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(?<![\w:])(\d+)([smhd])\b")  # neither a name's part nor the step of a subquery
SECONDS = re.compile(r"(?<=\* )\d+(?= >=)|(?<=, )\d+(?=\)\) < 0)")  # of failures in a window, of a forecast


def faster(by: float) -> dict[str, Any]:
    """The file, `by` times faster; waits in seconds."""
    made: dict[str, Any] = yaml.safe_load(RULES.read_text())
    for rule in (rule for group in made["groups"] for rule in group["rules"]):
        expr = DURATION.sub(
            lambda found: f"{max(LEAST_RANGE_S, round(seconds(found[0]) / by))}s", rule["expr"]
        )
        rule["expr"] = SECONDS.sub(lambda found: str(round(int(found[0]) / by)), expr)
        if "alert" in rule:
            rule["for"] = f"{round(seconds(rule.get('for', '0s')) / by)}s"
    return made


def seconds(duration: str) -> int:
    return int(duration[:-1]) * UNITS[duration[-1]]
