"""A fault of a GPU is told outside: exporter, Prometheus, its rule, Alertmanager, and the address that is posted to.

The cards are not there (dcgm.py); all that follows them is what runs in production.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.stack import ROOT, Stack, wait_for

SERVICES = ("alertmanager", "webhook", "dcgm-exporter")


@pytest.fixture(scope="module")
def told(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with GPU 3 of eight off the bus, and an address that is told."""
    address = tmp_path_factory.mktemp("webhook") / "url"
    address.write_text("http://webhook:9095/alerts\n")
    address.chmod(0o644)
    stack.compose("build", "--quiet", "alertmanager")
    try:
        stack.compose("up", "-d", *SERVICES, ALERT_WEBHOOK_URL_FILE=str(address), TWIN_XID="79")
        yield stack
    finally:
        stack.compose("--profile", "*", "rm", "--stop", "--force", *SERVICES)
        wait_for("no alert left", lambda: not stack.query('ALERTS{alertname="GPUXid"}'), 60)


def messages(stack: Stack) -> list[dict[str, Any]]:
    """What was posted so far."""
    return [json.loads(line) for line in stack.logs("webhook").splitlines() if line.startswith("{")]


@pytest.mark.full
def test_a_page_about_a_gpu_is_posted(told: Stack) -> None:
    """Within a minute of the exporter's start, in Alertmanager's own form, with the node's name and the runbook."""

    def page() -> dict[str, Any] | None:
        posted = (one for one in messages(told) if one["groupLabels"]["alertname"] == "GPUXid")
        return next(posted, None)

    message = wait_for("a message about GPU 3", page, 60)
    assert (message["version"], message["receiver"], message["status"]) == ("4", "webhook", "firing")
    (alert,) = message["alerts"]
    labels = {"alertname": "GPUXid", "severity": "page", "gpu": "3", "err_code": "79", "node": "this host"}
    assert labels.items() <= alert["labels"].items()
    assert alert["annotations"] == {
        "summary": "GPU 3 of this host reports XID 79",
        "runbook_url": "docs/operations.md#gpuxid",
    }


@pytest.mark.full
def test_every_counter_that_rules_name_is_scraped(told: Stack) -> None:
    """For eight cards, under the node's name."""
    rules = (ROOT / "observability/prometheus/rules.yaml").read_text()
    named = set(re.findall(r"\bDCGM_\w+", rules))
    assert len(named) == 5
    for name in sorted(named):
        count = f'count({name}{{job="gpus", instance="this host"}}) == 8'
        wait_for(f"{name} of eight cards", lambda asked=count: told.query(asked) or None, 60)


def test_without_an_address_alertmanager_refuses(stack: Stack) -> None:
    """Exit code 2 and one sentence, instead of alerts that go nowhere."""
    done = stack.compose("run", "--rm", "--no-deps", "-T", "alertmanager", check=False)
    assert done.returncode == 2
    assert "alertmanager: ALERT_WEBHOOK_URL_FILE must name a file" in done.stderr
