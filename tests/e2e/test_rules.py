"""Prometheus' own judgement of its configuration and rules, and that what they name is there in a live scrape."""

import json
import re

import httpx
import pytest
import yaml
from openai import OpenAI

from tests.e2e.conftest import MODEL
from tests.e2e.stack import GATEWAY, ROOT, Stack, get, wait_for
from tests.twins import dialogues

PROMETHEUS = "http://127.0.0.1:9090"
RULES = ROOT / "observability/prometheus/rules.yaml"


@pytest.mark.parametrize(
    "words",
    [
        "check config prometheus.yaml",
        "check rules rules.yaml",
        "test rules rules_test.yaml rules_slow_test.yaml",
    ],
)
def test_promtool_accepts(stack: Stack, words: str) -> None:
    """Of every alert one case fires and one stays silent, on the windows as shipped."""
    code, said = stack.container("prometheus").exec_run(
        ["promtool", *words.split()], workdir="/etc/prometheus", environment={"TMPDIR": "/prometheus"}
    )
    assert isinstance(said, bytes)
    assert code == 0, said.decode()[-2000:]
    assert b"SUCCESS" in said


def test_every_rule_is_evaluated_without_an_error(stack: Stack) -> None:
    def health() -> set[str]:
        groups = json.loads(get(f"{PROMETHEUS}/api/v1/rules")[1])["data"]["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]}

    wait_for("every rule evaluated", lambda: health() == {"ok"}, 60)


def test_every_metric_that_rules_name_is_scraped(stack: Stack, client: OpenAI) -> None:
    """But for those of weights jobs, which end within seconds here, and of GPUs; and those that a gateway has only with
    a key file, a Redis or an audit log, whose tests are with the gateway's metrics."""
    client.chat.completions.create(model=MODEL, temperature=0, stream=True, **dialogues.ENGLISH.request())
    httpx.post(f"{GATEWAY}/v1/chat/completions", json={"model": "none-such"}, timeout=5)
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    named = set(
        re.findall(
            r"\b(?:gateway_(?!key_|limits_|audit_)|launcher_|vllm:)\w+",
            " ".join(rule["expr"] for rule in rules),
        )
    )
    assert len(named) > 20

    def missing() -> set[str]:
        return {name for name in named if not stack.query(f"count({name})")}

    wait_for(f"all of {sorted(named)}", lambda: not missing(), 60)
