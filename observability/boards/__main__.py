"""Writes every dashboard's JSON.

usage: python -m observability.boards FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from observability.boards import BOARDS
from observability.boards.panels import Board

STRAY = ("auto", "auto_min", "auto_count")  # of intervals alone; the library writes them into every variable


def as_json(board: Board) -> str:
    """As it is committed: what the library makes, without what Grafana's own types do not know."""
    made: dict[str, Any] = json.loads(JSONEncoder().encode(board.build()))
    for variable in made["templating"].get("list", ()):
        for name in STRAY:
            variable.pop(name, None)
    for panel in made["panels"]:
        panel.get("options", {}).pop("footer", None)  # of tables, before Grafana 12.2
    return json.dumps(made, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def main(words: list[str]) -> int:
    folder = Path(words[0])
    for board in BOARDS:
        (folder / f"{board.uid.removeprefix('octet-')}.json").write_text(as_json(board))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
