"""Figures as bars with their spread, in SVG; a run's CPU costs among them. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.bars import CPU
from bench.figures import Figure
from bench.record import Record, Title
from bench.servers import Kind

WIDTH, LEFT, RIGHT, ROW, HEAD = 760, 170, 130, 22, 40
COLOURS = {Kind.GATEWAY: "#0b7a75", Kind.RUST: "#b7410e", Kind.NGINX: "#6b7280", Kind.PYTHON: "#9a7d0a"}
STYLE = (
    "text { font: 13px system-ui, sans-serif; fill: #222 } .title { font-weight: 600 } "
    "@media (prefers-color-scheme: dark) { text { fill: #ddd } } .spread { stroke: #888; stroke-width: 2 }"
)
SCALE_TO = 3.0  # times the cheapest Rust router's cost: what costs more is cut off, its figure told


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure: the median as a bar, the rounds' spread as a line across its end."""

    name: str
    figure: Figure
    colour: str


@dataclass(frozen=True, slots=True)
class Group:
    """Bars of one kind, on one scale. `most`: the value at which they are cut off; 0: the highest."""

    title: str
    bars: Sequence[Bar]
    most: float = 0.0

    @property
    def reach(self) -> float:
        return self.most or max((bar.figure.high for bar in self.bars), default=1.0) or 1.0


def draw(groups: Sequence[Group], title: str) -> str:
    """All groups, one below the other."""
    parts: list[str] = []
    top = 0
    for group in groups:
        parts += lines(group, top)
        top += HEAD + ROW * len(group.bars)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 10}" role="img">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    return "\n".join([head, *parts, "</svg>", ""])


def lines(group: Group, top: int) -> Iterator[str]:
    yield f'<text class="title" x="0" y="{top + 20}">{escape(group.title)}</text>'
    for number, bar in enumerate(group.bars):
        yield from drawn(bar, group.reach, top + HEAD - 10 + number * ROW)


def drawn(bar: Bar, most: float, y: int) -> Iterator[str]:
    """The bar, its spread, and the figure beside it."""
    figure, middle = bar.figure, y + ROW / 2
    low, median, high = (place(value, most) for value in (figure.low, figure.median, figure.high))
    yield f'<text x="0" y="{middle + 4}">{escape(bar.name)}</text>'
    yield f'<rect x="{LEFT}" y="{y + 3}" width="{median - LEFT:.1f}" height="{ROW - 6}" fill="{bar.colour}"/>'
    yield f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
    cut = " (cut off)" if figure.median > most else ""
    yield f'<text x="{high + 6:.1f}" y="{middle + 4}">{figure.median:,.1f}{cut}</text>'


def place(value: float, most: float) -> float:
    """The x of a value; what is beyond `most` stands at the right end."""
    return LEFT + (WIDTH - LEFT - RIGHT) * min(value / most, 1)


def cost_plot(record: Record, scenarios: Sequence[str]) -> str:
    """One group of bars for each scenario that was measured."""
    titles = [title for title in record.titles if title.key in scenarios]
    return draw([cost_group(record, title) for title in titles], "CPU time a unit of work")


def cost_group(record: Record, title: Title) -> Group:
    """The rows with figures, the mock worker's own left out; what costs far more than a Rust router is cut off."""
    rows = [
        (entrant, row)
        for entrant, row in record.rows_of(title.key)
        if row.samples and entrant.kind != Kind.DIRECT
    ]
    bars = [
        Bar(entrant.name, row.figure(CPU), COLOURS.get(Kind(entrant.kind), "#444")) for entrant, row in rows
    ]
    name, best = f"CPU µs a {title.unit}: {title.title}", record.best(title.key, Kind.RUST)
    highest = Group(name, bars).reach
    return Group(name, bars, min(highest, SCALE_TO * best.median(CPU)) if best else highest)
