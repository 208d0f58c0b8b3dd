"""A run as text for a terminal. Pure."""

from collections.abc import Iterator

from bench.bars import CPU, Verdict
from bench.figures import table
from bench.record import Entrant, Record, Row, Title
from bench.scenarios import JSON, MANY
from bench.servers import MAIN, Kind

COLUMNS = {"p50_ms": 2, "p99_ms": 2, "ttfb_p50_ms": 2, "ttfb_p99_ms": 2, "peak_rss_mib": 0, "pieces": 1}
HEADER = ["p50 ms", "p99 ms", "TTFB p50 ms", "TTFB p99 ms", "peak MiB", "body pieces"]


def report(record: Record, verdicts: list[Verdict]) -> str:
    """One table a scenario, then what was absent, then the bars; medians, the rounds' spread in brackets."""
    parts = [
        f"medians of {record.facts['rounds']} rounds (lowest-highest)",
        *(section(record, title) for title in record.titles if record.rows_of(title.key)),
        *(["\n".join(absent(record))] if any(absent(record)) else []),
        "bars\n" + "\n".join(verdict.text() for verdict in verdicts),
        summary(record),
    ]
    return "\n\n".join(part for part in parts if part)


def section(record: Record, title: Title) -> str:
    """`vs Rust`: CPU time over that of the best Rust router; below 1 is cheaper."""
    header = [
        title.title,
        f"CPU us/{title.unit}",
        "vs Rust",
        f"{title.unit}s/s",
        f"{title.unit}s/CPU s",
        *HEADER,
    ]
    best = record.best(title.key, Kind.RUST)
    lines = [
        cells(entrant, row, best) for entrant, row in record.rows_of(title.key) if row.samples or row.failure
    ]
    return table(header, lines)


def cells(entrant: Entrant, row: Row, best: Row | None) -> list[str]:
    if row.failure:
        return [f"{entrant.name}: FAILED: {row.failure[:60]}", *["-"] * (len(COLUMNS) + 4)]
    figures = [row.figure(name).text(digits) for name, digits in COLUMNS.items()]
    rates = [row.figure(name).text(0) for name in ("units_per_s", "units_per_cpu_s")]
    return [entrant.name, row.figure(CPU).text(1), ratio_text(row, best), *rates, *figures]


def ratio_text(row: Row, best: Row | None) -> str:
    """Its CPU time over that of `best`."""
    return f"{row.median(CPU) / best.median(CPU):.2f}" if best else "-"


def absent(record: Record) -> Iterator[str]:
    for entrant in record.entrants:
        if entrant.why_absent:
            yield f"ABSENT  {entrant.name}: {entrant.why_absent}"


def summary(record: Record) -> str:
    """The gateway's CPU time in one line."""
    rows = {unit: record.find(key, MAIN) for key, unit in ((JSON, "request"), (MANY, "chunk"))}
    costs = [f"{row.median(CPU):.1f} us/{unit}" for unit, row in rows.items() if row]
    return f"gateway: median CPU {', '.join(costs)}" if costs else ""
