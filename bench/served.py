"""What `bench/serve.py` measured, as tables and as a plot: each way's figures, and what the gateway adds.

usage: python -m bench.served FILE     prints the tables and writes FILE with .svg for .json
Exit codes: 0 shown · 2 there is nothing to show in that file.
"""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.figures import Figure, table
from bench.plot import Bar, Group, draw

Record = dict[str, Any]  # `row`: its name; `loads`: a round each, as bench/serve.py tells it
OVERHEAD = ["concurrency", "rounds", "throughput, of direct", "TTFT p50, ms more", "ITL p99, ms more"]
LOADS = ["concurrency", "way", "tokens/s", "TTFT p50 ms", "TTFT p99 ms", "TPOT p50 ms", "ITL p99 ms"]
LATENCIES = ("median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_itl_ms")
PLOTTED = {"output_throughput": "tokens/s", "median_ttft_ms": "TTFT p50, ms", "p99_itl_ms": "ITL p99, ms"}
COLOURS = {"direct": "#6b7280", "gateway": "#0b7a75"}


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
    both = {
        at: paired(ways.get("direct", []), ways.get("gateway", [])) for at, ways in by_way(record).items()
    }
    return [overhead(at, *pair) for at, pair in both.items() if pair[0]]


def paired(direct: list[Record], gateway: list[Record]) -> tuple[list[Record], list[Record]]:
    """The rounds that failed neither way."""
    common = {one["round"] for one in direct} & {one["round"] for one in gateway}
    return [one for one in direct if one["round"] in common], [
        one for one in gateway if one["round"] in common
    ]


def overhead(concurrency: int, direct: list[Record], gateway: list[Record]) -> list[str]:
    ratio = median(gateway, "output_throughput") / median(direct, "output_throughput")
    more = [median(gateway, name) - median(direct, name) for name in ("median_ttft_ms", "p99_itl_ms")]
    return [str(concurrency), str(len(direct)), f"{ratio:.3f}", *(f"{one:+.2f}" for one in more)]


def loads(record: Record) -> list[list[str]]:
    """A line for each concurrency and way: medians, the lowest and highest in brackets."""
    return [
        [
            str(at),
            way,
            f"{median(rounds, 'output_throughput'):,.0f}",
            *(spread(rounds, name) for name in LATENCIES),
        ]
        for at, ways in by_way(record).items()
        for way, rounds in ways.items()
    ]


def spread(rounds: list[Record], name: str) -> str:
    figure = figure_of(rounds, name)
    return figure.text(2) if figure.low < figure.high else f"{figure.median:,.2f}"


def figure_of(rounds: list[Record], name: str) -> Figure:
    return Figure.of([one[name] for one in rounds])


def failures(record: Record) -> list[str]:
    """Why rounds are missing from the tables."""
    failed = [one for one in record["loads"] if "failure" in one or one["failed"]]
    return [f"{one['way']} at {one['concurrency']}: {reason(one)}" for one in failed]


def reason(one: Record) -> str:
    return str(one.get("failure") or f"{one['failed']} requests failed: {one.get('said', '')}")


def groups(record: Record) -> Iterator[Group]:
    """For each concurrency and figure, the ways side by side."""
    for at, ways in by_way(record).items():
        for name, title in PLOTTED.items():
            bars = [
                Bar(way, figure_of(rounds, name), COLOURS.get(way, "#444")) for way, rounds in ways.items()
            ]
            yield Group(f"{title}, {at} at once", bars)


def main(words: list[str]) -> int:
    file = Path(words[0])
    if not file.is_file() or not file.stat().st_size:
        print(f"bench: nothing was measured in {file}", file=sys.stderr)
        return 2
    record: Record = json.loads(file.read_text())
    print(table(LOADS, loads(record)), "", table(OVERHEAD, overheads(record)), *failures(record), sep="\n")
    file.with_suffix(".svg").write_text(draw(list(groups(record)), f"vllm bench serve: {record['row']}"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
