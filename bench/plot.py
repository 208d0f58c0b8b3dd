"""A run's CPU costs as bars with their spread, in SVG. Pure."""

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from bench.bars import CPU
from bench.record import Entrant, Record, Row, Title
from bench.servers import Kind

WIDTH, LEFT, RIGHT, ROW, HEAD = 760, 170, 130, 22, 40
COLOURS = {Kind.GATEWAY: "#0b7a75", Kind.RUST: "#b7410e", Kind.NGINX: "#6b7280", Kind.PYTHON: "#9a7d0a"}
STYLE = (
    "text { font: 13px system-ui, sans-serif; fill: #222 } .title { font-weight: 600 } "
    "@media (prefers-color-scheme: dark) { text { fill: #ddd } } .spread { stroke: #888; stroke-width: 2 }"
)
SCALE_TO = 3.0  # times the cheapest Rust router's cost: what costs more is cut off, its figure told


def cost_plot(record: Record, scenarios: Sequence[str]) -> str:
    """One group of bars for each scenario that was measured."""
    titles = [title for title in record.titles if title.key in scenarios]
    parts: list[str] = []
    top = 0
    for title in titles:
        rows = measured(record, title)
        parts += group(title, rows, reach(record, title, rows), top)
        top += HEAD + ROW * len(rows)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 10}" role="img">'
        f"<title>CPU time a unit of work</title><style>{STYLE}</style>"
    )
    return "\n".join([head, *parts, "</svg>", ""])


def measured(record: Record, title: Title) -> list[tuple[Entrant, Row]]:
    """The rows with figures, the mock worker's own left out."""
    rows = record.rows_of(title.key)
    return [(entrant, row) for entrant, row in rows if row.samples and entrant.kind != Kind.DIRECT]


def reach(record: Record, title: Title, rows: list[tuple[Entrant, Row]]) -> float:
    """The cost at the right end of the bars."""
    most = max((row.figure(CPU).high for _, row in rows), default=1.0)
    best = record.best(title.key, Kind.RUST)
    return min(most, SCALE_TO * best.median(CPU)) if best else most


def group(title: Title, rows: list[tuple[Entrant, Row]], most: float, top: int) -> Iterator[str]:
    yield f'<text class="title" x="0" y="{top + 20}">CPU µs a {title.unit}: {escape(title.title)}</text>'
    for number, (entrant, row) in enumerate(rows):
        yield from bar(entrant, row, most, top + HEAD - 10 + number * ROW)


def bar(entrant: Entrant, row: Row, most: float, y: int) -> Iterator[str]:
    """The median as a bar, the rounds' spread as a line across its end, the figure beside it."""
    figure, middle = row.figure(CPU), y + ROW / 2
    low, median, high = (place(value, most) for value in (figure.low, figure.median, figure.high))
    colour = COLOURS.get(Kind(entrant.kind), "#444")
    yield f'<text x="0" y="{middle + 4}">{escape(entrant.name)}</text>'
    yield f'<rect x="{LEFT}" y="{y + 3}" width="{median - LEFT:.1f}" height="{ROW - 6}" fill="{colour}"/>'
    yield f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
    cut = " (cut off)" if figure.median > most else ""
    yield f'<text x="{high + 6:.1f}" y="{middle + 4}">{figure.median:,.1f}{cut}</text>'


def place(cost: float, most: float) -> float:
    """The x of a cost; what is beyond `most` stands at the right end."""
    return LEFT + (WIDTH - LEFT - RIGHT) * min(cost / most, 1)
