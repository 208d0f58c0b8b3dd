"""A dashboard's JSON as TypeScript, typed by Grafana's own declarations, so that the compiler judges every field."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Json = Mapping[str, Any]
TYPES = "@grafana/schema/dist/types/raw/composable"
OPTIONS = {
    "bargauge": "bargauge/panelcfg/x/BarGaugePanelCfg_types.gen",
    "stat": "stat/panelcfg/x/StatPanelCfg_types.gen",
    "state-timeline": "statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen",
    "table": "table/panelcfg/x/TablePanelCfg_types.gen",
    "timeseries": "timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen",
}  # where the types of a kind of panel are
CUSTOM = {"state-timeline", "table", "timeseries"}  # kinds whose fields have settings of their own


def source(board: Json) -> str:
    """The dashboard as a literal of type `Dashboard`, and what its type leaves open: each panel's own options."""
    lines = ["import type { Dashboard } from '@grafana/schema';", "import type { Plain } from '../plain';"]
    lines += [f"import type * as {name(kind)} from '{TYPES}/{path}';" for kind, path in OPTIONS.items()]
    lines.append(f"export const board: Plain<Dashboard> = {json.dumps(board, ensure_ascii=False)};")
    return "\n".join([*lines, *(line for panel in board["panels"] for line in of_panel(panel)), ""])


def of_panel(panel: Json) -> Iterator[str]:
    """Its options, and the settings of its fields. Raises KeyError for a kind whose types are not known here."""
    if panel["type"] == "row":
        return
    OPTIONS[panel["type"]]
    kind, number = name(panel["type"]), panel["id"]
    yield f"export const options{number}: Plain<{kind}.Options> = {json.dumps(panel['options'])};"
    if panel["type"] in CUSTOM:
        custom = panel["fieldConfig"]["defaults"].get("custom", {})
        yield f"export const custom{number}: Partial<Plain<{kind}.FieldConfig>> = {json.dumps(custom)};"


def name(kind: str) -> str:
    return kind.replace("-", "")


def compile_errors(place: Path, boards: Mapping[str, Json]) -> list[str]:
    """What the compiler says of them; none if all fits. `place`: where node, the types and tsconfig.json are."""
    folder = place / "boards"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.ts"):
        old.unlink()
    for key, board in boards.items():
        (folder / f"{key}.ts").write_text(source(board))
    words = [place / "node", place / "node_modules/typescript/bin/tsc", "--project", place / "tsconfig.json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if done.returncode not in (0, 1, 2):
        raise RuntimeError(f"tsc ended with {done.returncode}: {done.stderr[-500:]}")
    return [line for line in done.stdout.splitlines() if ": error TS" in line]
