"""Writes docs/proofs.md's tables from the records in bench/gpu/records, so that no figure there is typed by hand.

usage: python -m bench.gpu.page [--check]     --check: writes nothing; exit code 1 where the page is another
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.gpu import recipe
from bench.gpu.replicas import POLICIES, medians
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
REPLICAS = [
    "replicas, mix",
    "policy",
    "TTFT p50 ms",
    "of the best",
    "TTFT p99 ms",
    "requests/s",
    "prompt tokens found in caches",
]


def load_records() -> list[Record]:
    """Every record, by date and name."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RECORDS.glob("*.json"))]
    return sorted(found, key=lambda record: str(record["date"]))


def written(records: list[Record]) -> str:
    """All that the page says of them, as Markdown."""
    parts = [
        table(STARTS, [start(record) for record in records]),
        *(f"- `{slug}`: not attempted: {why}." for slug, why in NOT_ATTEMPTED.items()),
        "## Through the gateway, against the worker directly",
        table(["row, caches", *OVERHEAD], named_rows(records, overheads)),
        "## Replicas, by policy",
        *(part for record in load_replicas() for part in policies(record)),
        "## Every load",
        table(["row, caches", *LOADS], named_rows(records, loads)),
        "## What each start was",
        *(told(record) for record in records),
    ]
    return "\n\n".join(parts) + "\n"


def load_replicas() -> list[Record]:
    """What replicas did under each policy, the latest first."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in (RECORDS / "replicas").glob("*.json")]
    return sorted(found, key=lambda record: str(record["date"]), reverse=True)


def policies(record: Record) -> list[str]:
    """The record's runs, a line for each number of replicas, mix and policy; best: the lowest TTFT p50."""
    runs = record["runs"]
    groups = sorted(
        {(run["replicas"], run["mix"]) for run in runs}, key=lambda group: (group[0], order(record, group[1]))
    )
    head = (
        f"{record['date']}, vLLM {record['vllm']}, {record['slug']} as shipped, each replica on its own "
        f"{record['gpus'][0].split(',')[0]}; {record['load']}; empty prefix caches before every run; medians of "
        f"{rounds(runs)} rounds."
    )
    lines = [compared(record, *group, policy) for group in groups for policy in POLICIES]
    return [head, table(REPLICAS, lines)]


def rounds(runs: list[Record]) -> str:
    """Such as `2 to 3`: a host that goes early leaves the last one incomplete."""
    counts = Counter((run["replicas"], run["mix"], run["policy"]) for run in runs).values()
    return " to ".join(map(str, sorted({min(counts), max(counts)})))


def order(record: Record, mix: str) -> int:
    return list(record["mixes"]).index(mix)


def compared(record: Record, replicas: int, mix: str, policy: str) -> list[str]:
    """One policy's medians, and its TTFT p50 as a multiple of the best policy's."""
    runs = record["runs"]

    def figure(name: str, of: str = policy) -> float:
        return medians(runs, replicas, mix, of, name)

    best = min(figure("ttft_p50_ms", of) for of in POLICIES)
    return [
        f"{replicas}, {record['mixes'][mix]['title']}", f"`{policy}`", f"{figure('ttft_p50_ms'):,.1f}",
        f"{figure('ttft_p50_ms') / best:.3f}", f"{figure('ttft_p99_ms'):,.0f}", f"{figure('requests_per_s'):,.1f}",
        f"{figure('cached'):.0%}",
    ]  # fmt: skip


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
        *([f"- {images(record)}"] if record.get("images") else []),
        f"- phases, s: {phases(record)}",
        *(
            [f"- attention {record['attention']}, experts {record['moe'] or 'none'}"]
            if record["attention"]
            else []
        ),
        *([f"- cause: `{cause(record['problems'])}`"] if record.get("problems") else []),
    ]
    return "\n".join([lines[0], "", *lines[1:]])


def images(record: Record) -> str:
    """What the images that it was shown did."""
    plain, shown = record["chats"][-1], record["images"]
    more = {one["prompt_tokens"] - plain["prompt_tokens"] for one in shown.values()}
    texts = {plain["text"], *(one["text"] for one in shown.values())}
    differ = "each answer another" if len(texts) == 1 + len(shown) else "answers alike"
    first = ", ".join(f"{one['first_s']:.2f}" for one in shown.values())
    return (
        f"shown an image of 728 x 728 pixels ({', '.join(shown)}), {', '.join(map(str, sorted(more)))} tokens more, "
        f"{differ}; first token after {first} s"
    )


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
