"""Dashboards and Prometheus' configuration, as far as they can be checked without running them."""

import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "observability/grafana/dashboards").glob("*.json"))
SOURCE = yaml.safe_load((ROOT / "observability/grafana/provisioning/datasources/prometheus.yaml").read_text())


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_say_what_they_show_and_what_to_do(path: Path) -> None:
    """Every panel has a title, a description, queries, the provisioned data source and a place of its own."""
    board = json.loads(path.read_text())
    assert board["uid"].startswith("octet-")
    uids = {source["uid"] for source in SOURCE["datasources"]}
    for panel in board["panels"]:
        assert panel["title"]
        assert len(panel["description"]) > 30, panel["title"]
        assert [target["expr"] for target in panel["targets"] if not target["expr"]] == []
        assert {target["datasource"]["uid"] for target in panel["targets"]} <= uids
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_latency_is_never_an_average_of_averages() -> None:
    """Quantiles come from summed bucket rates, which stay right across replicas."""
    text = "".join(path.read_text() for path in DASHBOARDS)
    assert "_sum / " not in text
    assert "avg(" not in text
