"""Values as they are now: figures, gauges, bars, tables; and plain text. Pure."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from observability.picture.charts import Plot, finite
from observability.picture.panels import Json
from observability.picture.series import NAME, PLAIN, Filled, Look, Series, colour, look_of
from observability.picture.svg import (
    BODY,
    BOLD,
    SMALL,
    Box,
    fitted,
    line,
    middle,
    num,
    path,
    rect,
    text,
    width_of,
    wrapped,
)

LARGEST, SMALLEST = 44, 12  # sizes of a figure
MOST_TILES = 40
TABLE_ROW, BAR_ROW = 24, 36
GAP = 6
ARC_FROM, ARC = 150, 240  # degrees


def figures(filled: Filled, box: Box) -> Iterator[str]:
    """One large figure for each series."""
    shown, texts = filled.series[:MOST_TILES], [told(filled, series) for series in filled.series[:MOST_TILES]]
    for cell, series, words in zip(cells(box, texts), shown, texts, strict=False):
        yield from figure(filled, series, words, cell)


def told(filled: Filled, series: Series) -> str:
    if filled.panel.options.get("textMode") == "name":
        return filled.title(series)
    return filled.look(series).text(filled.value(series))


def cells(box: Box, texts: Sequence[str]) -> list[Box]:
    """As many as there are texts, in the grid in which the longest is largest."""
    longest = max(max(map(width_of, texts)) / BODY, 2)

    def size(columns: int) -> float:
        return min(box.h / math.ceil(len(texts) / columns) / 2, box.w / columns / longest, LARGEST)

    columns = max(range(1, len(texts) + 1), key=size)
    return list(box.cells(columns, math.ceil(len(texts) / columns), GAP))


def figure(filled: Filled, series: Series, words: str, box: Box) -> Iterator[str]:
    """The figure in its colour, or on it, with a name where there are several."""
    shade, is_on = filled.look(series).colour(filled.value(series)), is_background(filled)
    if is_on:
        yield rect(box, fill=shade, radius=3)
    else:
        yield from spark(filled, series, shade, box)
    name = "" if is_nameless(filled) else filled.title(series)
    size = min(box.h * (0.45 if name else 0.6), box.w * 0.82 / max(width_of(words, BOLD), 1), LARGEST)
    if name:
        yield middle(box.cut(bottom=box.h - 20), fitted(name, box.w - 8), "on" if is_on else "faint")
    place, size = box.cut(top=16 if name else 0), max(size, SMALLEST)
    yield middle(place, fitted(words, box.w, size), "title", "#fff" if is_on else shade, size)


def is_background(filled: Filled) -> bool:
    return str(filled.panel.options.get("colorMode", "value")).startswith("background")


def is_nameless(filled: Filled) -> bool:
    mode = filled.panel.options.get("textMode", "auto")
    return mode in ("value", "name", "none") or (mode == "auto" and len(filled.series) == 1)


def spark(filled: Filled, series: Series, shade: str, box: Box) -> Iterator[str]:
    """The course, faint behind the figure."""
    points = finite(series)
    if len(points) < 2 or filled.panel.options.get("graphMode", "area") == "none":
        return
    low, high = min(value for _, value in points), max(value for _, value in points)
    plot = Plot(box.cut(top=box.h * 0.55), filled.span, low, high if high > low else low + 1)
    course = [(plot.x(time), plot.y(value)) for time, value in points]
    floor = [(course[-1][0], plot.box.bottom), (course[0][0], plot.box.bottom)]
    yield f'<path fill="{shade}" fill-opacity="0.15" d="{path([*course, *floor], is_closed=True)}"/>'


def gauges(filled: Filled, box: Box) -> Iterator[str]:
    """An arc for each series, as full as the value."""
    shown = filled.series[:MOST_TILES]
    for cell, series in zip(cells(box, [told(filled, one) for one in shown]), shown, strict=False):
        yield from gauge(filled, series, cell)


def gauge(filled: Filled, series: Series, box: Box) -> Iterator[str]:
    look, value = filled.look(series), filled.value(series)
    name = "" if is_nameless(filled) else filled.title(series)
    low, high = look.low or 0.0, most(look, [100.0])
    room = box.cut(top=6, bottom=20 if name else 4)
    radius = min(room.w / 2, room.h / 1.55) - 8
    centre = (room.centre[0], room.y + radius + 8)
    share = min(max((value - low) / (high - low), 0), 1)
    width = radius * 0.24
    yield f'<path class="arc" fill="none" stroke-width="{num(width)}" d="{arc(centre, radius, 0, 1)}"/>'
    if share:
        d = arc(centre, radius, 0, share)
        yield f'<path fill="none" stroke="{look.colour(value)}" stroke-width="{num(width)}" d="{d}"/>'
    words = look.text(value)
    size = min(radius * 0.5, radius * 1.5 / max(width_of(words, BOLD), 1))
    yield text(centre[0], centre[1] + size * 0.3, words, "title", "middle", look.colour(value), size)
    if name:
        yield text(centre[0], centre[1] + radius * 0.5 + 20, fitted(name, box.w - 8), "faint", "middle")


def arc(centre: tuple[float, float], radius: float, begin: float, end: float) -> str:
    """The `d` of a part of a gauge's arc."""
    turns = [math.radians(ARC_FROM + ARC * share) for share in (begin, end)]
    ends = [(centre[0] + radius * math.cos(turn), centre[1] + radius * math.sin(turn)) for turn in turns]
    (x1, y1), (x2, y2) = ends
    is_long = int((end - begin) * ARC > 180)
    return f"M{num(x1)},{num(y1)}A{num(radius)},{num(radius)} 0 {is_long} 1 {num(x2)},{num(y2)}"


def most(look: Look, values: Sequence[float]) -> float:
    """Where a full bar ends: where the panel says, or at 100 %, or at the highest value."""
    if look.high is not None:
        return look.high
    return (
        1.0
        if look.unit == "percentunit"
        else max([value for value in values if math.isfinite(value)], default=0) or 1.0
    )


def bars(filled: Filled, box: Box) -> Iterator[str]:
    """A bar for each series, its name before and its value behind it."""
    shown = filled.series[: max(1, int(box.h / (SMALL + 5)))]
    names, values = [filled.title(one) for one in shown], [filled.value(one) for one in shown]
    texts = [filled.look(one).text(value) for one, value in zip(shown, values, strict=True)]
    left = (
        0.0 if is_nameless(filled) and len(shown) == 1 else min(max(map(width_of, names)) + 10, box.w * 0.42)
    )
    right = max(width_of(words) for words in texts) * BOLD + 10
    height = min(BAR_ROW, box.h / len(shown))
    for at, series in enumerate(shown):
        row = Box(box.x, box.y + at * height, box.w, height)
        if left:
            yield text(row.x + left - 8, row.centre[1] + 4, fitted(names[at], left - 10), "", "end")
        yield from one_bar(
            filled.look(series), values[at], most(filled.look(series), values), row.cut(left, 2, right, 2)
        )
        yield text(
            row.right,
            row.centre[1] + 4,
            texts[at],
            "title",
            "end",
            filled.look(series).colour(values[at]),
            BODY,
        )
    if len(shown) < len(filled.series):
        yield text(
            box.right, box.bottom + 6, f"+ {len(filled.series) - len(shown)} more", "small faint", "end"
        )


def one_bar(look: Look, value: float, high: float, box: Box) -> Iterator[str]:
    low = look.low or 0.0
    share = min(max((value - low) / (high - low), 0), 1) if high > low else 0
    yield rect(box, "track", radius=2)
    if share:
        yield rect(replace(box, w=max(box.w * share, 1)), fill=look.colour(value), radius=2)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, by column: labels as they are, values as numbers."""

    cells: dict[str, str | float] = field(default_factory=dict)

    def fits(self, labels: Json) -> bool:
        """Whether the labels that both have are the same."""
        return all(self.cells.get(name, value) == value for name, value in labels.items())


def rows_of(filled: Filled) -> list[Row]:
    """A row for each set of labels; the values of several queries side by side where their labels agree."""
    found: list[Row] = []
    several = len(filled.panel.targets) > 1
    for series in filled.series:
        labels = {name: value for name, value in series.labels.items() if name != NAME}
        column = f"Value #{series.ref}" if several else "Value"
        same = [row for row in found if column not in row.cells and row.fits(labels)]
        for row in same or [Row()]:
            row.cells.update(labels, **{column: filled.value(series)})
            found += [] if same else [row]
    return found


def columns_of(filled: Filled, rows: Sequence[Row]) -> dict[str, str]:
    """The columns with their heads, picked and put in order as the panel's transformations say."""
    every = list(dict.fromkeys(name for row in rows for name in row.cells))
    labels = [name for name in every if not name.startswith("Value")]
    heads = {name: name for name in [*labels, *sorted(set(every) - set(labels))]}
    for step in filled.panel.transformations:
        options = step.get("options", {})
        if step["id"] == "filterFieldsByName" and "names" in options.get("include", {}):
            heads = {name: head for name, head in heads.items() if name in options["include"]["names"]}
        elif step["id"] == "organize":
            heads = organized(heads, options)
    return {
        name: look_of(filled.panel, {name}).options.get("displayName") or head for name, head in heads.items()
    }


def organized(heads: dict[str, str], options: Json) -> dict[str, str]:
    order, hidden = options.get("indexByName") or {}, options.get("excludeByName") or {}
    names = sorted(
        (name for name in heads if not hidden.get(name)), key=lambda name: order.get(name, len(heads))
    )
    return {name: (options.get("renameByName") or {}).get(name) or heads[name] for name in names}


def in_order(filled: Filled, rows: Sequence[Row], heads: dict[str, str]) -> list[Row]:
    """Sorted as the panel says."""
    wanted = next(iter(filled.panel.options.get("sortBy") or ()), {"displayName": None})
    name = next((name for name, head in heads.items() if wanted["displayName"] in (name, head)), "")

    def key(row: Row) -> tuple[bool, str | float]:
        value = row.cells.get(name, "")
        return isinstance(value, str), value

    return sorted(rows, key=key, reverse=bool(wanted.get("desc"))) if name else list(rows)


def table(filled: Filled, box: Box) -> Iterator[str]:
    """A row for each series; as many as have room."""
    rows = rows_of(filled)
    heads = columns_of(filled, rows)
    rows = in_order(filled, rows, heads)
    shown = rows[: max(1, int(box.h / TABLE_ROW) - 1 - (len(rows) > int(box.h / TABLE_ROW) - 1))]
    looks = {
        name: look_of(filled.panel, {name, head}, name.removeprefix("Value #"))
        for name, head in heads.items()
    }
    texts = [{name: cell_text(row.cells.get(name, ""), looks[name]) for name in heads} for row in shown]
    places = column_places(heads, texts, box)
    for name, head in heads.items():
        x, width = places[name]
        yield text(x + 6, box.y + 16, fitted(head, width - 10), "faint")
    for number, (row, words) in enumerate(zip(shown, texts, strict=True)):
        line_ = Box(box.x, box.y + (number + 1) * TABLE_ROW, box.w, TABLE_ROW)
        yield line(line_.x, line_.y, line_.right, line_.y)
        for name in heads:
            x, width = places[name]
            yield from cell(
                row.cells.get(name, ""), words[name], looks[name], Box(x, line_.y, width, TABLE_ROW)
            )
    if len(shown) < len(rows):
        yield text(box.x + 6, box.bottom - 6, f"+ {len(rows) - len(shown)} more", "small faint")


def column_places(
    heads: dict[str, str], texts: Sequence[dict[str, str]], box: Box
) -> dict[str, tuple[float, float]]:
    """Where each column begins and how wide it is: by its longest text, all together as wide as the box."""
    wanted = {
        name: max(width_of(words) for words in (heads[name], *(row[name] for row in texts))) + 16
        for name in heads
    }
    factor, x, found = box.w / max(sum(wanted.values()), 1), box.x, dict[str, tuple[float, float]]()
    for name, width in wanted.items():
        found[name] = (x, width * factor)
        x += width * factor
    return found


def cell_text(value: str | float, look: Look) -> str:
    return look.mapped(value).get("text", value) if isinstance(value, str) else look.text(value)


def cell(value: str | float, words: str, look: Look, box: Box) -> Iterator[str]:
    """A cell, coloured as the panel says."""
    options = (
        look.options.get("custom.cellOptions") or look.options.get("custom", {}).get("cellOptions") or {}
    )
    mapped, kind = look.mapped(value).get("color"), options.get("type", "auto")
    shade = colour(mapped) if mapped else look.colour(value) if isinstance(value, float) else PLAIN
    if kind == "color-background":
        yield rect(box.cut(1, 1, 1, 1), fill=shade, radius=2)
    css, fill = ("on", "") if kind == "color-background" else ("", shade if kind == "color-text" else "")
    yield text(box.x + 6, box.y + 16, fitted(words, box.w - 10), css, fill=fill)


def prose(filled: Filled, box: Box) -> Iterator[str]:
    """Markdown as plain lines: headings bold, links by their words."""
    y = box.y + 12
    for raw in str(filled.panel.options.get("content", "")).splitlines():
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)|<[^>]+>|[*`]+", lambda found: found[1] or "", raw)
        css = "title" if words.startswith("#") else ""
        for part in wrapped(words.lstrip("# "), box.w):
            if y <= box.bottom:
                yield text(box.x, y, part, css)
            y += 17
