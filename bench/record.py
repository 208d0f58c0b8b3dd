"""What a run measured, as values: every round of every row, in memory and as a JSON file. Pure but for the file."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Figure

SHARED, APART = "shared", "apart"  # whether servers of several processes share a core with their load


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one scenario against one server. Latencies are of whole answers; `pieces` is per answer."""

    us_per_unit: float
    units_per_s: float
    p50_ms: float
    p99_ms: float
    ttfb_p50_ms: float
    ttfb_p99_ms: float
    peak_rss_mib: float
    pieces: float

    @property
    def units_per_cpu_s(self) -> float:
        """What one core could do, were it busy with nothing else."""
        return 1e6 / self.us_per_unit


@dataclass(frozen=True, slots=True)
class Title:
    """A scenario, as reports name it."""

    key: str
    title: str
    unit: str


@dataclass(frozen=True, slots=True)
class Entrant:
    """A server, as reports name it. `why_absent`: why it was not measured, or "" if it was."""

    key: str
    name: str
    kind: str
    why_absent: str = ""


@dataclass(slots=True)
class Row:
    """One server under one scenario. `failure`: what went wrong in the round after the last sample, or ""."""

    scenario: str
    server: str
    samples: list[Sample] = field(default_factory=list)
    failure: str = ""

    def figure(self, name: str) -> Figure:
        """Of one field over all rounds; there must be one round at least."""
        return Figure.of([getattr(sample, name) for sample in self.samples])

    def median(self, name: str) -> float:
        return self.figure(name).median


@dataclass(frozen=True, slots=True)
class Record:
    """A whole run. `facts`: when and where, as words."""

    facts: dict[str, str]
    titles: list[Title]
    entrants: list[Entrant]
    rows: list[Row]

    def find(self, scenario: str, server: str) -> Row | None:
        """The row with samples, if there is one."""
        rows = (row for row in self.rows if row.scenario == scenario and row.server == server and row.samples)
        return next(rows, None)

    def rows_of(self, scenario: str) -> list[tuple[Entrant, Row]]:
        """All rows of a scenario, failed ones too, in the order of the servers."""
        rows = {row.server: row for row in self.rows if row.scenario == scenario}
        return [(entrant, rows[entrant.key]) for entrant in self.entrants if entrant.key in rows]

    def best(self, scenario: str, kind: str) -> Row | None:
        """The row with the least CPU time a unit among the servers of a kind."""
        rows = [row for entrant, row in self.rows_of(scenario) if entrant.kind == kind and row.samples]
        return min(rows, key=lambda row: row.median("us_per_unit"), default=None)

    def name(self, key: str) -> str:
        return next(entrant.name for entrant in self.entrants if entrant.key == key)


def save(path: Path, record: Record) -> None:
    path.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Record:
    """Reads what `save` wrote."""
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        Row(**(row | {"samples": [Sample(**sample) for sample in row["samples"]]})) for row in raw["rows"]
    ]
    titles, entrants = [Title(**title) for title in raw["titles"]], [Entrant(**e) for e in raw["entrants"]]
    return Record(raw["facts"], titles, entrants, rows)
