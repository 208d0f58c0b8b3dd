"""Writes docs/proofs.md's tables from the records in bench/gpu/records, so that no figure there is typed by hand.

usage: python -m bench.gpu.page [--check]     --check: writes nothing; exit code 1 where the page is another
"""

import json
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.gpu import recipe
from bench.marked import replaced

RECORDS = Path(__file__).parent / "records"
PAGE = Path(__file__).resolve().parents[2] / "docs/proofs.md"
TARGET = "proofs-page"
Record = dict[str, Any]
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
OVERHEAD = ["row, concurrency", "rounds", "throughput, of direct", "TTFT p50, ms more", "ITL p99, ms more"]
LOADS = ["row, concurrency", "way", "tokens/s", "TTFT p50", "TTFT p99", "TPOT p50", "ITL p99"]


def load() -> list[Record]:
    """Every record, by date and name."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RECORDS.glob("*.json"))]
    return sorted(found, key=lambda record: str(record["date"]))


def written(records: list[Record]) -> str:
    """All that the page says of them, as Markdown."""
    parts = [
        table(STARTS, [start(record) for record in records]),
        "## Through the gateway, against the worker directly",
        table(OVERHEAD, [row for record in records for row in overheads(record)]),
        "## Every load",
        table(LOADS, [row for record in records for row in loads(record)]),
        "## What each start was",
        *(told(record) for record in records),
    ]
    return "\n\n".join(parts) + "\n"


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


def by_way(record: Record) -> dict[int, dict[str, list[Record]]]:
    """The rounds that did not fail, by concurrency and way."""
    found: dict[int, dict[str, list[Record]]] = {}
    for one in record.get("loads", []):
        if "failure" not in one and not one["failed"]:
            found.setdefault(one["concurrency"], {}).setdefault(one["way"], []).append(one)
    return found


def median(rounds: list[Record], name: str) -> float:
    return float(statistics.median(one[name] for one in rounds))


def overheads(record: Record) -> list[list[str]]:
    """A line for each concurrency that was asked both ways."""
    both = {at: ways for at, ways in by_way(record).items() if {"direct", "gateway"} <= ways.keys()}
    return [overhead(record, at, ways["direct"], ways["gateway"]) for at, ways in both.items()]


def overhead(record: Record, concurrency: int, direct: list[Record], gateway: list[Record]) -> list[str]:
    ratio = median(gateway, "output_throughput") / median(direct, "output_throughput")
    more = [median(gateway, name) - median(direct, name) for name in ("median_ttft_ms", "p99_itl_ms")]
    return [
        f"{record['row']}, {concurrency}",
        str(len(direct)),
        f"{ratio:.3f}",
        *(f"{one:+.2f}" for one in more),
    ]


def loads(record: Record) -> list[list[str]]:
    return [
        [f"{record['row']}, {at}", way, f"{median(rounds, 'output_throughput'):,.0f}",
         *(spread(rounds, name) for name in ("median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_itl_ms"))]
        for at, ways in by_way(record).items() for way, rounds in ways.items()
    ]  # fmt: skip


def spread(rounds: list[Record], name: str) -> str:
    values = [one[name] for one in rounds]
    return f"{statistics.median(values):,.2f} ({min(values):,.2f}-{max(values):,.2f})"


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
    new = replaced(page, written(load()), TARGET)
    if words == ["--check"]:
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
