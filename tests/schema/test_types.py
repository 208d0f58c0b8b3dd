"""Each dashboard fits Grafana's own types, and the check sees what does not; run by `make check-dashboards`."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.schema.typescript import compile_errors

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "out/schema"
BOARDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((ROOT / "observability/grafana/dashboards").glob("*.json"))
}


def first(board: Any, kind: str) -> Any:
    return next(panel for panel in board["panels"] if panel["type"] == kind)


def misspelt(of: Callable[[Any], Any], right: str, wrong: str) -> Any:
    """The model's dashboard with one field called otherwise."""
    board = copy.deepcopy(BOARDS["model"])
    part = of(board)
    part[wrong] = part.pop(right)
    return board


def line(board: Any) -> Any:
    return first(board, "timeseries")


PARTS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "dashboard": (lambda board: board, "refresh", "refreshh"),
    "variable": (lambda board: board["templating"]["list"][0], "multi", "multy"),
    "panel": (line, "description", "descripton"),
    "field": (lambda board: line(board)["fieldConfig"]["defaults"], "unit", "units"),
    "option": (lambda board: line(board)["options"]["legend"], "placement", "placment"),
    "custom": (
        lambda board: line(board)["fieldConfig"]["defaults"]["custom"],
        "fillOpacity",
        "fillOpaqueness",
    ),
}


def test_every_dashboard_fits() -> None:
    assert len(BOARDS) == 6
    assert compile_errors(PLACE, BOARDS) == []


def test_a_value_that_is_none_of_an_enum_is_seen() -> None:
    board = copy.deepcopy(BOARDS["model"])
    first(board, "timeseries")["options"]["legend"]["placement"] = "botom"
    assert "botom" in "".join(compile_errors(PLACE, {"wrong": board}))


@pytest.mark.parametrize("part", PARTS)
def test_a_misspelt_field_is_seen(part: str) -> None:
    """Wherever it stands, and by its name."""
    of, right, wrong = PARTS[part]
    assert f'"{wrong}"' in "".join(compile_errors(PLACE, {"wrong": misspelt(of, right, wrong)}))
