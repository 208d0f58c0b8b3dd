"""Writes a run's tables into docs/performance.md and its plot beside it, so that no figure there is typed by hand.

`python -m bench.page FILE` takes what `bench.gateway --json FILE` wrote.
Exit codes: 0 written · 2 there is no such file.
"""

import argparse
import sys
from pathlib import Path

from bench.bars import CPU, judge
from bench.marked import replaced
from bench.plot import cost_plot
from bench.record import Entrant, Record, Row, Title, load
from bench.report import ratio_text
from bench.scenarios import JSON, MANY, THOUSAND
from bench.servers import Kind

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
PLOT = PAGE.with_suffix(".svg")
TARGET = "bench-page"
PLOTTED = (JSON, MANY, THOUSAND)
HEADER = ["CPU µs", "of the best Rust router's", "per s", "p50 / p99 ms", "TTFB p50 / p99 ms", "peak MiB"]


def written(record: Record) -> str:
    """All that the page says of a run, as Markdown."""
    sections = [section(record, title) for title in record.titles if record.rows_of(title.key)]
    absent = [f"Not measured: {e.name} ({e.why_absent})." for e in record.entrants if e.why_absent]
    parts = [
        where(record.facts),
        f"![CPU time a unit of work, gateway and peers]({PLOT.name})",
        *sections,
        *absent,
        bars(record),
    ]
    return "\n\n".join(parts) + "\n"


def where(facts: dict[str, str]) -> str:
    return (
        f"{facts['date']}, {facts['host']}, {facts['python']}; medians of {facts['rounds']} rounds,\n"
        "the lowest and highest in brackets."
    )


def section(record: Record, title: Title) -> str:
    """One table: the scenario's title and unit, a row for each server."""
    lines = [line(record, title, entrant, row) for entrant, row in record.rows_of(title.key)]
    head = [f"**{title.title}**, by {title.unit}", *HEADER]
    rule = ["---", *["--:"] * len(HEADER)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *filter(None, lines)))


def line(record: Record, title: Title, entrant: Entrant, row: Row) -> list[str]:
    if row.failure:
        return [entrant.name, "fails", *["–"] * (len(HEADER) - 1)]
    if not row.samples:
        return []
    pairs = (("p50_ms", "p99_ms"), ("ttfb_p50_ms", "ttfb_p99_ms"))
    return [
        entrant.name,
        row.figure(CPU).text(1),
        ratio_text(row, record.best(title.key, Kind.RUST)),
        f"{row.median('units_per_s'):,.0f}",
        *(" / ".join(f"{row.median(name):,.2f}" for name in pair) for pair in pairs),
        f"{row.median('peak_rss_mib'):,.0f}",
    ]


def bars(record: Record) -> str:
    verdicts = [verdict for verdict in judge(record, None, None) if verdict.value is not None]
    cells = [
        ["bar", "measured", ""],
        ["---", "--:", "---"],
        *(
            [
                f"{verdict.name}: {verdict.side} {verdict.bar:g}",
                f"{verdict.value:,.2f}",
                verdict.state,
            ]
            for verdict in verdicts
        ),
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.page", description="Writes docs/performance.md.")
    parser.add_argument("file", type=Path, help="what `bench.gateway --json` wrote")
    file: Path = parser.parse_args().file
    if not file.is_file():
        print(f"bench: there is no {file}: make bench-gateway writes it", file=sys.stderr)
        return 2
    record = load(file)
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), written(record), TARGET), encoding="utf-8")
    PLOT.write_text(cost_plot(record, PLOTTED), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
