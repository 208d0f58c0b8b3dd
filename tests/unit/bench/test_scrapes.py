"""What being watched costs, worked out: how often Prometheus asks, and the share of a core that is."""

import pytest
import yaml

from bench.bars import Verdict
from bench.scrapes import (
    CONFIG,
    LAUNCHERS,
    METRICS,
    WORKERS,
    Cost,
    judge,
    row,
    schedule,
    seconds,
    with_launchers,
    written,
)

PAGES = {METRICS: 5.0, WORKERS: 10.0}
COST = Cost("gateway", PAGES, {METRICS: [9_000, 10_000, 90_000], WORKERS: [1_000] * 3}, [0.01] * 3, 1234)


@pytest.mark.parametrize(
    ("text", "expected"), [("5s", 5), ("1m", 60), ("1m30s", 90), ("250ms", 0.25), ("1h", 3600)]
)
def test_durations_are_prometheus_own(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["5", "5 s", "x5s", "5d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        seconds(text)


def test_intervals_are_those_of_prometheus_configuration() -> None:
    """A job's own interval goes before the global one; the gateway serves the lists of targets."""
    lists = [{"url": "http://gateway:8001/targets/worker", "refresh_interval": "10s"}]
    jobs = [
        {"job_name": "gateway"},
        {"job_name": "worker", "http_sd_configs": lists, "scrape_interval": "2s"},
    ]
    config = {"global": {"scrape_interval": "5s"}, "scrape_configs": jobs}
    assert schedule(config, "gateway") == PAGES
    assert schedule(config, "worker") == {METRICS: 2}


def test_the_shipped_configuration_is_read() -> None:
    """All that is asked of the gateway, and each exporter's own page."""
    config = yaml.safe_load(CONFIG.read_text())
    pages = {METRICS, WORKERS, LAUNCHERS, "/targets/weights"}
    assert schedule(config, "gateway").keys() == pages
    assert [schedule(config, job).keys() for job in ("launcher", "weights")] == [{METRICS}, {METRICS}]


def test_a_cost_is_a_share_of_a_core() -> None:
    """Medians: 10 ms every 5 s and 1 ms every 10 s are 0.21 %; one wild round changes nothing."""
    assert COST.percent() == pytest.approx(0.21)
    assert judge([COST]) == [Verdict("% of a core for being watched: gateway", COST.percent(), 1.0)]
    dear = Cost("launcher", {METRICS: 5}, {METRICS: [51_000]}, [0], 1)
    assert judge([dear])[0].is_missed


def test_launchers_cost_what_workers_do() -> None:
    assert with_launchers({WORKERS: [2.0], LAUNCHERS: [1.0]}) == {WORKERS: [2.0], LAUNCHERS: [2.0]}


def test_a_row_says_what_was_measured() -> None:
    """And the table how often."""
    line = row(COST, judge([COST])[0])
    assert line == "| gateway | 1,234 | 10,000 (9,000-90,000) | 1,000 | 0.21 | holds |"
    assert line in written([COST], 3)
    assert "medians of 3 rounds" in written([COST], 3)
