"""What the person on call sees: live targets, vLLM's own metrics, ours, and dashboards whose queries answer."""

import json
import re

import pytest
from openai import OpenAI

from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import ROOT, Stack, wait_for
from tests.twins import dialogues

DASHBOARDS = sorted((ROOT / "observability/grafana/dashboards").glob("*.json"))


def queries(dashboard: dict[str, object]) -> list[str]:
    """Every panel's expressions, Grafana's variables filled as Grafana would."""
    panels = dashboard["panels"]
    assert isinstance(panels, list)
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [re.sub(r"\$__rate_interval", "1m", expression) for expression in found]


@pytest.fixture(scope="module")
def traffic(stack: Stack, client: OpenAI) -> None:
    """A few requests, one of them wrong, long enough ago that every rate has two samples."""
    for _ in range(3):
        client.chat.completions.create(model=MODEL, temperature=0, **dialogues.ENGLISH.request())
    wait_for("the first samples", lambda: stack.query("gateway_requests_total"), 60)
    for _ in range(3):
        client.chat.completions.create(model=MODEL, temperature=0, **dialogues.ENGLISH.request())
    rate = 'sum(rate(gateway_requests_total{ending="complete"}[1m])) > 0'
    wait_for("a rate", lambda: stack.query(rate) or None, 60)


def test_gateway_and_worker_are_scraped(stack: Stack, traffic: None) -> None:
    """Prometheus finds both by itself, the launcher too, and all are up; worker and launcher carry their slug."""
    wanted = {("gateway", None), ("worker", SLUG), ("launcher", SLUG)}
    wait_for("all up", lambda: wanted <= up(stack) or None, 60)  # a worker may just have come back


def up(stack: Stack) -> set[tuple[str, str | None]]:
    """Job and slug of every target that was there at its last scrape."""
    metrics = [entry["metric"] for entry in stack.query("up") if entry["value"][1] == "1"]
    return {(metric["job"], metric.get("slug")) for metric in metrics}


def test_vllm_metrics_come_from_the_worker(stack: Stack, traffic: None) -> None:
    """vLLM's own counters are scraped from the worker, never copied by the gateway."""
    tokens = "sum by (job, model_name) (vllm:generation_tokens_total) > 0"
    found = wait_for("vLLM's count of tokens", lambda: stack.query(tokens) or None, 30)
    assert [(entry["metric"]["job"], entry["metric"]["model_name"]) for entry in found] == [("worker", MODEL)]


def test_gateway_counts_requests(stack: Stack, traffic: None) -> None:
    """Our counters say what happened, by model and ending."""
    complete = f'sum(gateway_requests_total{{model="{MODEL}",status="200",ending="complete"}}) >= 3'
    wait_for("three complete requests", lambda: stack.query(complete) or None, 60)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_dashboard_query_returns_data(stack: Stack, traffic: None, path: object) -> None:
    """Each panel of each dashboard has something to show on a running stack."""
    expressions = queries(json.loads(path.read_text()))  # type: ignore[attr-defined]
    assert expressions
    for expression in expressions:  # a rate needs two samples of a worker that may have just come back
        wait_for(f"data for {expression}", lambda asked=expression: stack.query(asked) or None, 60)
