"""What Prometheus answered, and how a panel wants it named, written and coloured. Pure."""

import math
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from observability.picture import units
from observability.picture.panels import Json, Panel, Span, Target

LABEL = re.compile(r"\{\{\s*([\w.]+)\s*\}\}|\$\{__field\.labels\.(\w+)\}")
NAME = "__name__"
GAP = 1.5  # steps without a sample, from which on a line is interrupted
COLOURS: Final = (
    "#3b9c4f", "#d29b00", "#3d8fe0", "#e8710a", "#d9453d", "#8e59d1", "#1aa3a3", "#c2569b", "#7a8a2a", "#5b6fd6",
    "#a0622d", "#6b7785",
)  # fmt: skip
NAMED: Final = {
    "green": "#3b9c4f", "yellow": "#d29b00", "orange": "#e8710a", "red": "#d9453d", "blue": "#3d8fe0",
    "purple": "#8e59d1", "gray": "#7b848f", "grey": "#7b848f", "text": "#7b848f", "transparent": "#7b848f",
    "white": "#e8e8e8", "black": "#222222",
}  # fmt: skip
PLAIN = NAMED["gray"]

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """Samples over time, or one. NaN counts as none."""

    name: str
    labels: Mapping[str, str]
    points: Sequence[Point]
    ref: str = "A"

    @property
    def values(self) -> list[float]:
        return [value for _, value in self.points]

    def runs(self, step: float) -> list[list[Point]]:
        """The stretches without a gap."""
        found: list[list[Point]] = [[self.points[0]]]
        for before, after in pairwise(self.points):
            if after[0] - before[0] > GAP * step:
                found.append([])
            found[-1].append(after)
        return found


def series_of(answer: Json, target: Target) -> list[Series]:
    """From the `data` of Prometheus' answer to one query, in its order; what has no number is left out."""
    result = answer["result"]
    if answer["resultType"] == "scalar":
        result = [{"metric": {}, "value": result}]
    found = [one(entry, target) for entry in result]
    return [series for series in found if series.points]


def one(entry: Json, target: Target) -> Series:
    raw = entry["values"] if "values" in entry else [entry["value"]]
    points = [(float(time), float(value)) for time, value in raw]
    labels = entry["metric"]
    kept = [point for point in points if not math.isnan(point[1])]
    return Series(named(target.legend, labels, target.expr), labels, kept, target.ref)


def named(legend: str, labels: Mapping[str, str], expr: str) -> str:
    """As the legend says; without one, by the labels, or else by the query."""
    if legend and legend != "__auto":
        return LABEL.sub(lambda found: labels.get(found[1] or found[2], ""), legend).strip()
    listed = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()) if name != NAME)
    whole = labels.get(NAME, "") + (f"{{{listed}}}" if listed else "")
    return whole or expr


REDUCERS: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "last": lambda values: values[-1],
    "lastNotNull": lambda values: values[-1],
    "first": lambda values: values[0],
    "firstNotNull": lambda values: values[0],
    "min": min,
    "max": max,
    "mean": lambda values: sum(values) / len(values),
    "sum": sum,
    "count": len,
    "range": lambda values: max(values) - min(values),
    "diff": lambda values: values[-1] - values[0],
}  # fmt: skip


def reduced(series: Series, calcs: Sequence[str]) -> float:
    """One value of a series, as the panel's first calculation says; the last one without."""
    return REDUCERS.get(next(iter(calcs), "last"), REDUCERS["last"])(series.values)


@dataclass(frozen=True, slots=True)
class Look:
    """How the values of one series are written and coloured: Grafana's field options, overrides applied."""

    options: Json

    @property
    def unit(self) -> str:
        return str(self.options.get("unit") or "none")

    @property
    def low(self) -> float | None:
        return _number(self.options.get("min"))

    @property
    def high(self) -> float | None:
        return _number(self.options.get("max"))

    @property
    def fixed(self) -> str | None:
        """The colour that it has whatever its value."""
        wanted = self.options.get("color", {})
        return (
            colour(wanted["fixedColor"]) if wanted.get("mode") == "fixed" and "fixedColor" in wanted else None
        )

    @property
    def has_thresholds(self) -> bool:
        return len(self.steps) > 1

    @property
    def steps(self) -> list[tuple[float, str]]:
        """From which value on which colour holds; the first from the lowest on."""
        raw = self.options.get("thresholds", {}).get("steps") or []
        steps = [
            (-math.inf if step.get("value") is None else float(step["value"]), step["color"]) for step in raw
        ]
        if self.options.get("thresholds", {}).get("mode") == "percentage":
            low, high = self.low or 0.0, 100.0 if self.high is None else self.high
            steps = [(low + (high - low) * share / 100, name) for share, name in steps]
        return [(value, colour(name)) for value, name in sorted(steps, key=lambda step: step[0])]

    def title(self, series: Series) -> str:
        shown = self.options.get("displayName")
        return named(shown, series.labels, "") if shown else series.name

    def text(self, value: float) -> str:
        """By a mapping, or with its unit."""
        mapped = self.mapped(value)
        return mapped.get("text") or units.said(value, self.unit, self.options.get("decimals"))

    def colour(self, value: float) -> str:
        """By a mapping, a fixed colour, or the thresholds."""
        if "color" in (mapped := self.mapped(value)):
            return colour(mapped["color"])
        passed = [name for from_, name in self.steps if value >= from_]
        return self.fixed or (passed[-1] if passed else PLAIN)

    def mapped(self, value: float | str) -> Json:
        """What the first mapping that fits says of a value: `text` and `color`, or neither."""
        for mapping in self.options.get("mappings") or ():
            if (found := MAPPINGS[mapping["type"]](mapping["options"], value)) is not None:
                return found
        return {}


def _by_value(options: Json, value: float | str) -> Json | None:
    key = value if isinstance(value, str) else f"{value:.12g}"
    return options.get(key)


def _by_range(options: Json, value: float | str) -> Json | None:
    low, high = _number(options.get("from")), _number(options.get("to"))
    within = isinstance(value, (int, float)) and (-math.inf if low is None else low) <= value <= (
        math.inf if high is None else high
    )
    return options["result"] if within else None


def _by_pattern(options: Json, value: float | str) -> Json | None:
    pattern = str(options["pattern"]).strip("/")
    return options["result"] if isinstance(value, str) and re.search(pattern, value) else None


def _special(options: Json, value: float | str) -> Json | None:
    """Of null and its like: there are none here, they count as no sample."""
    return options["result"] if options.get("match") == "empty" and value == "" else None


MAPPINGS: Final[Mapping[str, Callable[[Json, float | str], Json | None]]] = {
    "value": _by_value,
    "range": _by_range,
    "regex": _by_pattern,
    "special": _special,
}


def look_of(panel: Panel, names: Set[str] = frozenset(), ref: str = "") -> Look:
    """The panel's field options for a series or column that is called so, or is of that query."""
    defaults: Json = dict(panel.config.get("defaults", {}))
    for override in panel.config.get("overrides") or ():
        if _matches(override["matcher"], names, ref):
            defaults |= {entry["id"]: entry.get("value") for entry in override["properties"]}
    return Look(defaults)


def _matches(matcher: Json, names: Set[str], ref: str) -> bool:
    wanted = str(matcher.get("options", ""))
    match matcher["id"]:
        case "byName":
            return wanted in names
        case "byRegexp":
            return any(re.search(wanted.strip("/"), name) for name in names)
        case "byFrameRefID":
            return ref == wanted
        case _:
            return False


def colour(name: str) -> str:
    """Grafana's names of colours, in tones that can be read on light and on dark."""
    plain = name.split("-")[-1]
    return name if name.startswith("#") else NAMED.get(plain, PLAIN)


def _number(value: float | str | None) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Filled:
    """A panel with what its queries gave, or with what is wrong."""

    panel: Panel
    span: Span
    series: Sequence[Series] = ()
    problem: str = ""

    def look(self, series: Series) -> Look:
        return look_of(self.panel, {series.name}, series.ref)

    def title(self, series: Series) -> str:
        return self.look(series).title(series)

    def value(self, series: Series) -> float:
        return reduced(series, self.panel.options.get("reduceOptions", {}).get("calcs") or ())
