"""Writes docs/proofs.md's tables from the records in bench/gpu/records, so that no figure there is typed by hand.

usage: python -m bench.gpu.page [--check]     --check: writes nothing; exit code 1 where the page is another
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.gpu import recipe
from bench.gpu.rows import NOT_ATTEMPTED
from bench.marked import replaced
from bench.served import LOADS, OVERHEAD, Record, loads, overheads

RECORDS = Path(__file__).parent / "records"
PAGE = Path(__file__).resolve().parents[2] / "docs/proofs.md"
TARGET = "proofs-page"
STARTS = [
    "slug, row",
    "GPUs",
    "vLLM",
    "caches",
    "outcome",
    "ready after",
    "weights",
    "KV cache a card",
    "one stream",
]


def load_records() -> list[Record]:
    """Every record, by date and name."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RECORDS.glob("*.json"))]
    return sorted(found, key=lambda record: str(record["date"]))


def written(records: list[Record]) -> str:
    """All that the page says of them, as Markdown."""
    parts = [
        table(STARTS, [start(record) for record in records]),
        "\n".join(f"- `{slug}`: not attempted: {why}." for slug, why in NOT_ATTEMPTED.items()),
        "## Through the gateway, against the worker directly",
        table(["row, caches", *OVERHEAD], named_rows(records, overheads)),
        "## Every load",
        table(["row, caches", *LOADS], named_rows(records, loads)),
        "## What each start was",
        *(told(record) for record in records),
    ]
    return "\n\n".join(parts) + "\n"


def named_rows(records: list[Record], rows: Callable[[Record], list[list[str]]]) -> list[list[str]]:
    """The rows of every record, with its name before them."""
    return [[f"{record['row']}, {record['caches']}", *row] for record in records for row in rows(record)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def start(record: Record) -> list[str]:
    chats = record.get("chats") or [{}]
    return [
        named(record), f"{record['used_gpus']} x {record['gpus'][0].split(',')[0]}",
        str(record["vllm"] or "?"), record["caches"], outcome(record), amount(record["after_s"], "s"),
        amount(record["weights_gib"], "GiB"), amount(record["kv_gib"], "GiB"),
        amount(chats[-1].get("tokens_per_s"), "tokens/s"),
    ]  # fmt: skip


def named(record: Record) -> str:
    layers = f", {record['layers']} layers" if record["layers"] else ""
    return f"{record['slug']}: {record['title']}{layers}"


def outcome(record: Record) -> str:
    """In a word or two, as a reader needs it."""
    if record.get("is_as_expected"):
        return "refused, as it must be"
    if record["outcome"] == "ready" and record.get("chats"):
        return "answers"
    return str(record.get("failure") or record["outcome"])


def amount(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:,.4g} {unit}"


def told(record: Record) -> str:
    """One record in words: when, how, its phases, what differs from the slug's files, what went wrong."""
    lines = [
        f"**{record['row']}**, {record['date']}, {record['gpus'][0]}; caches {record['caches']}",
        f"- {record['command']}",
        *(f"- {name}: `{json.dumps(part)}`" for name, part in recipe.differences(record).items()),
        *([f"- {record['layers']} layers of the model's own"] if record["layers"] else []),
        f"- phases, s: {phases(record)}",
        *(
            [f"- attention {record['attention']}, experts {record['moe'] or 'none'}"]
            if record["attention"]
            else []
        ),
        *([f"- cause: `{cause(record['problems'])}`"] if record.get("problems") else []),
    ]
    return "\n".join([lines[0], "", *lines[1:]])


def cause(problems: list[str]) -> str:
    """The first error that is not another's consequence."""
    errors = [text for text in problems if re.search(r"\w+Error: ", text) and "Engine core" not in text]
    return re.sub(r"^.*?(?=\w+Error: )", "", (errors or problems)[0])


def phases(record: Record) -> str:
    return ", ".join(f"{name} {seconds:.0f}" for name, seconds in record["phases_s"].items()) or "none"


def main(words: list[str]) -> int:
    page = PAGE.read_text(encoding="utf-8")
    new = replaced(page, written(load_records()), TARGET)
    if words == ["--check"]:
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
