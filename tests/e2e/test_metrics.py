"""What the person on call sees: live targets, vLLM's own metrics, ours."""

import time

import pytest
from openai import OpenAI

from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import Stack, wait_for
from tests.twins import dialogues


@pytest.fixture(scope="module")
def traffic(stack: Stack, client: OpenAI) -> None:
    """Requests until Prometheus has seen their number grow."""
    rate = 'sum(rate(gateway_requests_total{ending="complete"}[1m])) > 0'

    def asked() -> object:
        client.chat.completions.create(model=MODEL, temperature=0, **dialogues.ENGLISH.request())
        return stack.query(rate) or None

    wait_for("a rate", asked, 60)


def test_gateway_and_worker_are_scraped(stack: Stack, traffic: None) -> None:
    """Prometheus finds both by itself, the launcher too, and all are up; worker and launcher carry their slug."""
    wanted = {("gateway", None), ("worker", SLUG), ("launcher", SLUG)}
    wait_for("all up", lambda: wanted <= up(stack) or None, 60)  # a worker may just have come back


def up(stack: Stack) -> set[tuple[str, str | None]]:
    """Job and slug of every target that was there at its last scrape."""
    metrics = [entry["metric"] for entry in stack.query("up") if entry["value"][1] == "1"]
    return {(metric["job"], metric.get("slug")) for metric in metrics}


def test_vllm_metrics_come_from_the_worker(stack: Stack, client: OpenAI) -> None:
    """vLLM's own counters are scraped from the worker, never copied by the gateway; they count what clients get, beside
    what the launcher's own requests got while it warmed the worker."""
    before = generated_tokens(stack)
    answer = client.chat.completions.create(model=MODEL, temperature=0, **dialogues.ENGLISH.request())
    assert answer.usage
    assert answer.usage.completion_tokens > 0
    assert generated_tokens(stack) - before >= answer.usage.completion_tokens


def generated_tokens(stack: Stack) -> float:
    """vLLM's own count, scraped after this was asked."""
    counter = "vllm:generation_tokens_total"
    fresh = f"sum by (job, model_name) ({counter} and timestamp({counter}) > {time.time()})"
    [found] = wait_for("vLLM's count of tokens", lambda: stack.query(fresh) or None, 30)
    assert (found["metric"]["job"], found["metric"]["model_name"]) == ("worker", MODEL)
    return float(found["value"][1])


def test_gateway_counts_requests(stack: Stack, traffic: None) -> None:
    """Our counters say what happened, by model and ending."""
    complete = f'sum(gateway_requests_total{{model="{MODEL}",status="200",ending="complete"}}) >= 3'
    wait_for("three complete requests", lambda: stack.query(complete) or None, 60)
