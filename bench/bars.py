"""What must hold, judged within one run: Octet's gateway against the best Rust router, and against itself. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.figures import Figure
from bench.record import APART, Record, Row
from bench.scenarios import GROWTH, JSON, MANY, REASONING, THOUSAND
from bench.servers import BASE, GROWN_FLEETS, MAIN, TWO, Kind

CPU = "us_per_unit"
MOST_CHUNK_RATIO = {MANY: 1.0, THOUSAND: 1.1, REASONING: 1.5}
LEAST_REQUEST_RATIO = 1.0
MOST_TTFB_MS, MOST_RSS_MIB = 10.0, 120.0  # of a thousand streams
MOST_GROWTH = 1.15
LEAST_SPEEDUP = 1.8  # of two processes on two cores


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bar. `value`: what was measured, or None where the run has nothing to judge it by; `most`: the bar's side;
    `is_open`: the rounds are not on one side of the bar, so that the value alone would say too much."""

    name: str
    value: float | None
    bar: float
    most: bool = True
    is_open: bool = False

    @property
    def is_missed(self) -> bool:
        return self.value is not None and beyond(self.value, self.bar, most=self.most)

    @property
    def state(self) -> str:
        if self.value is None:
            return "skipped"
        if self.is_missed:
            return "missed"
        return "inconclusive" if self.is_open else "holds"

    @property
    def side(self) -> str:
        return "at most" if self.most else "at least"

    def text(self) -> str:
        """Such as `MISSED  1.31, at most 1.00: CPU a chunk ...`."""
        state = self.state.upper() if self.is_missed else self.state
        value = "not measured" if self.value is None else f"{self.value:,.2f}"
        return f"{state:7}  {value}, {self.side} {self.bar:,.2f}: {self.name}"


def beyond(value: float, bar: float, *, most: bool) -> bool:
    return value > bar if most else value < bar


def compared(name: str, ours: Figure, theirs: Figure, bar: float, *, most: bool = True) -> Verdict:
    """The ratio of two medians. Open where the rounds of the two overlap and some of them, taken together, are beyond
    the bar."""
    overlap = ours.low <= theirs.high and theirs.low <= ours.high
    worst = ours.high / theirs.low if most else ours.low / theirs.high
    is_open = overlap and beyond(worst, bar, most=most)
    return Verdict(name, ours.median / theirs.median, bar, most, is_open)


def judge(
    record: Record, most_us_per_request: float | None, most_us_per_chunk: float | None
) -> list[Verdict]:
    """Every bar of which the run has the scenario. The absolute ones (CPU microseconds) only if given."""
    asked = {title.key for title in record.titles}
    verdicts = [*absolute(record, most_us_per_request, most_us_per_chunk)]
    verdicts += requests(record) if JSON in asked else []
    verdicts += [verdict for key in MOST_CHUNK_RATIO if key in asked for verdict in chunks(record, key)]
    verdicts += thousand(record) if THOUSAND in asked else []
    return verdicts + ([*growth(record), speedup(record)] if GROWTH in asked else [])


def absolute(record: Record, per_request: float | None, per_chunk: float | None) -> Iterator[Verdict]:
    for key, unit, bar in ((JSON, "request", per_request), (MANY, "chunk", per_chunk)):
        row = record.find(key, MAIN)
        if bar is not None and row is not None:
            yield Verdict(f"CPU µs a {unit}", row.median(CPU), bar)


def requests(record: Record) -> list[Verdict]:
    """Requests a CPU second: a core's throughput, whatever else the host does."""
    name = "requests/s per core, against the faster Rust router"
    ours, best = record.find(JSON, MAIN), record.best(JSON, Kind.RUST)
    if ours is None or best is None:
        return [Verdict(name, None, LEAST_REQUEST_RATIO, most=False)]
    return [compared(name, best.figure(CPU), ours.figure(CPU), LEAST_REQUEST_RATIO, most=False)]


def chunks(record: Record, key: str) -> list[Verdict]:
    title = next(title.title for title in record.titles if title.key == key)
    name, bar = f"CPU a chunk, against the better Rust router: {title}", MOST_CHUNK_RATIO[key]
    ours, best = record.find(key, MAIN), record.best(key, Kind.RUST)
    if ours is None or best is None:
        return [Verdict(name, None, bar)]
    return [compared(name, ours.figure(CPU), best.figure(CPU), bar)]


def thousand(record: Record) -> list[Verdict]:
    row = record.find(THOUSAND, MAIN)
    ttfb, rss = (None, None) if row is None else (row.median("ttfb_p99_ms"), row.median("peak_rss_mib"))
    return [
        Verdict("ms, TTFB p99 of a thousand streams", ttfb, MOST_TTFB_MS),
        Verdict("MiB, peak memory of a thousand streams", rss, MOST_RSS_MIB),
    ]


def growth(record: Record) -> list[Verdict]:
    """CPU a request of each larger gateway against the smallest."""
    base = record.find(GROWTH, BASE)
    return [
        larger(fleet.name, record.find(GROWTH, fleet.key), base)
        for fleet in GROWN_FLEETS
        if fleet.key not in (BASE, TWO)
    ]


def speedup(record: Record) -> Verdict:
    """Two processes on two cores against one on one; only where the load has cores of its own is that a figure."""
    two, base = record.find(GROWTH, TWO), record.find(GROWTH, BASE)
    name, speed = "times the requests/s of one process, by two on two cores", "units_per_s"
    if record.facts.get("cores") != APART:
        return Verdict(f"{name} (four cores are needed)", None, LEAST_SPEEDUP, most=False)
    if two is None or base is None:
        return Verdict(name, None, LEAST_SPEEDUP, most=False)
    return compared(name, two.figure(speed), base.figure(speed), LEAST_SPEEDUP, most=False)


def larger(name: str, row: Row | None, base: Row | None) -> Verdict:
    text = f"CPU a request, against 1 worker and 1 model: {name}"
    if row is None or base is None:
        return Verdict(text, None, MOST_GROWTH)
    return compared(text, row.figure(CPU), base.figure(CPU), MOST_GROWTH)
