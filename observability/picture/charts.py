"""Courses over time: lines with axes and legend, and states as coloured stretches. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from observability.picture import units
from observability.picture.panels import Span
from observability.picture.series import COLOURS, Filled, Look, Point, Series, look_of, reduced
from observability.picture.svg import BODY, SMALL, Box, fitted, line, middle, num, path, rect, text, width_of

AXIS_H, LEGEND_H = 18, 17
TICK_H, TICK_W = 34, 80  # the least room of a tick's label
LEGEND_SHARE = 0.34  # of a panel's height, at most
SWATCH, APART = 16, 14
ROW_H, LEAST_ROW_H = 56, 14
Layer = list[tuple[float, float, float]]  # time, where it begins, where it ends


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend. `dash`: of a series whose colour another one has too."""

    colour: str
    name: str
    dash: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """Where which time and which value is."""

    box: Box
    span: Span
    low: float
    high: float

    def x(self, time: float) -> float:
        share = (time - self.span.begin) / self.span.seconds
        return self.box.x + self.box.w * min(max(share, 0), 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.box.bottom - self.box.h * min(max(share, 0), 1)


def lines(filled: Filled, box: Box) -> Iterator[str]:
    """Every series as a line, or one upon the other."""
    keys = keys_of(filled)
    rows = legend(keys, box) if filled.panel.options.get("legend", {}).get("showLegend", True) else []
    layers = stacked(filled.series) if is_stacked(filled) else plain(filled.series)
    look = filled.look(filled.series[0])
    low, high, ticks = domain(look, layers, box.h - AXIS_H - LEGEND_H * len(rows))
    names = units.labels(ticks, look.unit, look.options.get("decimals"))
    left = max(width_of(name, SMALL) for name in names) + 8
    room = box.cut(left=left, top=6, right=6, bottom=AXIS_H + LEGEND_H * len(rows))
    plot = Plot(room, filled.span, low, high)
    yield from value_axis(plot, ticks, names)
    yield from time_axis(plot)
    yield from limits(filled, plot)
    for series, layer, key in zip(filled.series, layers, keys, strict=True):
        yield from course(filled, plot, series, layer, key)
    yield from legend_lines(rows, box)


def keys_of(filled: Filled) -> list[Key]:
    return [key_of(filled, at, series) for at, series in enumerate(filled.series)]


def key_of(filled: Filled, at: int, series: Series) -> Key:
    """Colours in turn; from the second turn on the lines are dashed."""
    look = filled.look(series)
    turn = at // len(COLOURS)
    dash = f"{6 - min(turn, 4)} {min(turn, 4) + 1}" if turn else ""
    calcs = filled.panel.options.get("legend", {}).get("calcs") or []
    told = [f"{calc.removesuffix('NotNull')} {look.text(reduced(series, [calc]))}" for calc in calcs]
    name = filled.title(series) + (f" ({', '.join(told)})" if told else "")
    return Key(look.fixed or COLOURS[at % len(COLOURS)], name, "" if look.fixed else dash)


def is_stacked(filled: Filled) -> bool:
    return bool(filled.panel.custom.get("stacking", {}).get("mode", "none") != "none")


def plain(series: Sequence[Series]) -> list[Layer]:
    return [[(time, 0.0, value) for time, value in finite(one)] for one in series]


def stacked(series: Sequence[Series]) -> list[Layer]:
    """Each series upon those before it."""
    heights: dict[float, float] = {}
    found: list[Layer] = []
    for one in series:
        layer = [
            (time, heights.get(time, 0.0), heights.get(time, 0.0) + value) for time, value in finite(one)
        ]
        heights |= {time: top for time, _, top in layer}
        found.append(layer)
    return found


def finite(series: Series) -> list[Point]:
    """Without what no axis reaches."""
    return [point for point in series.points if math.isfinite(point[1])]


def domain(look: Look, layers: Sequence[Layer], height: float) -> tuple[float, float, list[float]]:
    """The lowest and highest value of the axis, and its ticks."""
    tops = [top for layer in layers for _, _, top in layer] or [0.0]
    low = min(tops) if look.low is None else look.low
    high = max(tops) if look.high is None else look.high
    if high <= low:
        low, high = (
            (low, low + (abs(low) or 1))
            if look.low is not None
            else (low - (abs(low) or 1), low + (abs(low) or 1))
        )
    ticks = units.ticks(low, high, max(1, int(height / TICK_H)), look.unit)
    low, high = (
        look.low if look.low is not None else ticks[0],
        look.high if look.high is not None else ticks[-1],
    )
    return low, high, [tick for tick in ticks if low <= tick <= high]


def value_axis(plot: Plot, ticks: Sequence[float], names: Sequence[str]) -> Iterator[str]:
    for tick, name in zip(ticks, names, strict=True):
        yield line(plot.box.x, plot.y(tick), plot.box.right, plot.y(tick))
        yield text(plot.box.x - 5, plot.y(tick) + 4, name, "small faint", "end")


def time_axis(plot: Plot) -> Iterator[str]:
    ticks = units.time_ticks(plot.span.begin, plot.span.end, max(1, int(plot.box.w / TICK_W)))
    for tick, name in zip(ticks, units.clock(ticks), strict=True):
        half = width_of(name, SMALL) / 2
        x = min(plot.x(tick), plot.box.right - half)
        yield line(plot.x(tick), plot.box.y, plot.x(tick), plot.box.bottom)
        yield text(x, plot.box.bottom + 14, name, "small faint", "middle")


def limits(filled: Filled, plot: Plot) -> Iterator[str]:
    """The thresholds, where the panel shows them."""
    if filled.panel.custom.get("thresholdsStyle", {}).get("mode", "off") == "off":
        return
    for value, colour in look_of(filled.panel).steps:
        if plot.low < value < plot.high:
            extra = f' style="stroke:{colour};stroke-dasharray:8 5;stroke-width:1.4"'
            yield line(plot.box.x, plot.y(value), plot.box.right, plot.y(value), extra=extra)


def course(filled: Filled, plot: Plot, series: Series, layer: Layer, key: Key) -> Iterator[str]:
    """A line for each stretch of a series, the area below it if it is to be filled; a dot for a lone sample."""
    custom, found = filled.panel.custom, {time: (base, top) for time, base, top in layer}
    opacity = 25 if custom.get("drawStyle") == "bars" else custom.get("fillOpacity", 0)
    for run in replace(series, points=finite(series)).runs(filled.span.step) if layer else ():
        bases, tops = ([(plot.x(time), plot.y(found[time][side])) for time, _ in run] for side in (0, 1))
        if is_stepped(filled):
            bases, tops = stepped(bases), stepped(tops)
        if opacity:
            d = path([*tops, *reversed(bases)], is_closed=True)
            yield f'<path fill="{key.colour}" fill-opacity="{opacity / 100:g}" d="{d}"/>'
        if len(run) == 1:
            yield f'<circle fill="{key.colour}" r="2" cx="{num(tops[0][0])}" cy="{num(tops[0][1])}"/>'
        else:
            yield f'<path class="line" stroke="{key.colour}"{dashed(key)} d="{path(tops)}"/>'


def is_stepped(filled: Filled) -> bool:
    custom = filled.panel.custom
    return custom.get("drawStyle") == "bars" or str(custom.get("lineInterpolation", "")).startswith("step")


def stepped(points: Sequence[Point]) -> list[Point]:
    """Each value until the next one."""
    corners = [[before, (after[0], before[1])] for before, after in pairwise(points)]
    return [corner for pair in corners for corner in pair] + [points[-1]]


def dashed(key: Key) -> str:
    return f' stroke-dasharray="{key.dash}"' if key.dash else ""


def legend(keys: Sequence[Key], box: Box) -> list[list[Key]]:
    """The entries in rows; what finds no room is told as a number."""
    most = max(1, int(box.h * LEGEND_SHARE / LEGEND_H))
    rows: list[list[Key]] = [[]]
    for at, key in enumerate(keys):
        if rows[-1] and length([*rows[-1], key]) > box.w:
            if len(rows) == most:
                return [*rows[:-1], with_rest(rows[-1], len(keys) - at, box.w)]
            rows.append([])
        rows[-1].append(key)
    return rows


def with_rest(row: Sequence[Key], left: int, width: float) -> list[Key]:
    """A row whose last entry says how many there are besides."""
    kept = list(row)
    while kept and length([*kept, rest(left + len(row) - len(kept))]) > width:
        kept.pop()
    return [*kept, rest(left + len(row) - len(kept))]


def rest(count: int) -> Key:
    return Key("", f"+ {count} more")


def length(keys: Sequence[Key]) -> float:
    return sum(SWATCH + width_of(key.name, SMALL) + APART for key in keys) - APART


def legend_lines(rows: Sequence[Sequence[Key]], box: Box) -> Iterator[str]:
    """At the bottom of the box."""
    for number, row in enumerate(rows):
        x, y = box.x, box.bottom - LEGEND_H * (len(rows) - number) + 13
        for key in row:
            if key.colour:
                extra = f' style="stroke:{key.colour};stroke-width:3"{dashed(key)}'
                yield line(x, y - 4, x + SWATCH - 5, y - 4, extra=extra)
            yield text(x + SWATCH, y, fitted(key.name, box.right - x - SWATCH, SMALL), "small")
            x += SWATCH + width_of(key.name, SMALL) + APART


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time during which a series was in one state."""

    begin: float
    end: float
    name: str
    colour: str


def timeline(filled: Filled, box: Box) -> Iterator[str]:
    """A row for each series, a stretch for each state it was in."""
    states = [stretches(filled, series) for series in filled.series]
    seen = {stretch.name: Key(stretch.colour, stretch.name) for row in states for stretch in row}
    rows = legend(list(seen.values()), box)
    names = [filled.title(series) for series in filled.series]
    left = min(max(map(width_of, names)) + 10, box.w * 0.36)
    room = box.cut(left=left, top=2, right=6, bottom=AXIS_H + LEGEND_H * len(rows))
    shown = min(len(names), max(1, int(room.h / LEAST_ROW_H)))
    height = min(ROW_H, room.h / shown)
    plot = Plot(replace(room, h=height * shown), filled.span, 0, 1)
    yield from time_axis(plot)
    for number in range(shown):
        row = Box(room.x, room.y + number * height, room.w, height)
        yield text(room.x - 6, row.centre[1] + 4, fitted(names[number], left - 10), "", "end")
        yield from bar(states[number], plot, row.cut(top=height * 0.12, bottom=height * 0.12))
    if shown < len(names):
        yield text(box.x, plot.box.bottom + 14, f"+ {len(names) - shown} more", "small faint")
    yield from legend_lines(rows, box)


def stretches(filled: Filled, series: Series) -> list[Stretch]:
    """Samples that say the same, joined; a state lasts until the next sample, or for one step."""
    look, step, found = filled.look(series), filled.span.step, list[Stretch]()
    for run in series.runs(step):
        ends = [time for time, _ in run[1:]] + [min(run[-1][0] + step, filled.span.end)]
        for (begin, value), end in zip(run, ends, strict=True):
            name, colour = look.text(value), look.colour(value)
            if found and (found[-1].end, found[-1].name) == (begin, name):
                found[-1] = replace(found[-1], end=end)
            else:
                found.append(Stretch(begin, end, name, colour))
    return found


def bar(states: Sequence[Stretch], plot: Plot, row: Box) -> Iterator[str]:
    for state in states:
        left, right = plot.x(state.begin), plot.x(state.end)
        place = Box(left, row.y, max(right - left, 1), row.h)
        yield rect(place, fill=state.colour, tip=state.name)
        if row.h >= SMALL + 2 and width_of(state.name, BODY) + 8 <= place.w:
            yield middle(place, state.name, "on")
