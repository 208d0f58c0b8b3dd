"""All panels of a dashboard, filled, as one picture. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from observability.picture import charts, tiles
from observability.picture.panels import ALL, ALL_SAID, NO_QUERIES, Board, Panel, Place, Span
from observability.picture.series import Filled
from observability.picture.svg import (
    BODY,
    TITLE,
    TITLE_H,
    Box,
    fitted,
    frame,
    line,
    middle,
    page,
    text,
    title_lines,
    wrapped,
)

WIDTH, COLUMNS = 1200, 24
ROW_H, GAP = 38, 8
HEAD_H, PANEL_HEAD_H = 46, 30
ROW = "row"

Chart = Callable[[Filled, Box], Iterator[str]]
CHARTS: Final[Mapping[str, Chart]] = {
    "timeseries": charts.lines,
    "state-timeline": charts.timeline,
    "stat": tiles.figures,
    "gauge": tiles.gauges,
    "bargauge": tiles.bars,
    "table": tiles.table,
    "text": tiles.prose,
}


def draw(board: Board, panels: Sequence[Filled], span: Span) -> str:
    """The dashboard with what was found."""
    bottom = max((place_of(filled.panel.place).bottom for filled in panels), default=HEAD_H)
    size = Box(0, 0, WIDTH, bottom + GAP)
    return page(size, board.title, [*head(board, span), *(part for one in panels for part in panel(one))])


def place_of(place: Place) -> Box:
    """In pixels."""
    column = (WIDTH - GAP) / COLUMNS
    return Box(
        GAP + place.x * column, HEAD_H + place.y * ROW_H, place.w * column - GAP, place.h * ROW_H - GAP
    )


def head(board: Board, span: Span) -> Iterator[str]:
    """The dashboard's name, what was chosen, and the time."""
    form = "%Y-%m-%d %H:%M"
    begin, end = (f"{datetime.fromtimestamp(time, UTC):{form}}" for time in (span.begin, span.end))
    chosen = [f"{name}: {ALL_SAID if value == ALL else value}" for name, value in board.chosen.items()]
    yield text(GAP + 2, 30, fitted(board.title, WIDTH / 2, 18), "head")
    yield text(WIDTH - GAP - 2, 30, " · ".join([*chosen, f"{begin} – {end} UTC"]), "faint", "end")


def panel(filled: Filled) -> Iterator[str]:
    one, box = filled.panel, place_of(filled.panel.place)
    if one.kind == ROW:
        yield line(box.x, box.bottom + 2, box.right, box.bottom + 2)
        yield text(box.x + 2, box.bottom - 6, fitted(one.title, box.w, TITLE), "title")
        return
    top = PANEL_HEAD_H + TITLE_H * (len(title_lines(one.title, box.w - 20)) - 1) if one.title else 8
    room = Box(0, 0, box.w, box.h).cut(left=10, top=top, right=10, bottom=8)
    yield from frame(one.title, one.description, box, body(filled, room))


def body(filled: Filled, box: Box) -> Iterator[str]:
    """The chart, or in red what is wrong; a panel that may be empty says so calmly."""
    one, wrong = filled.panel, problem(filled)
    if wrong:
        for number, words in enumerate(wrapped(wrong, box.w)):
            yield middle(box.cut(top=number * 34), words, "bad")
    elif not filled.series and one.kind not in NO_QUERIES:
        yield middle(box, one.no_value or "", "faint", size=BODY)
    else:
        yield from CHARTS[one.kind](filled, box)


def problem(filled: Filled) -> str:
    """What is wrong with a panel; empty if it has something to show, or may have nothing."""
    one = filled.panel
    if filled.problem or one.kind in NO_QUERIES:
        return filled.problem
    if one.kind not in CHARTS:
        return f"a panel of type {one.kind} cannot be drawn"
    return "" if filled.series or one.no_value is not None else "no data"


def is_idle(one: Panel, filled: Filled) -> bool:
    """Whether it shows what it shows where nothing is the matter."""
    return not filled.series and not problem(filled) and one.kind not in NO_QUERIES
