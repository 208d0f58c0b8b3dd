"""A dashboard as its JSON says it: panels in their places, queries with their variables filled in. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]
ALL, ALL_SAID = ".*", "All"
SCRAPE_S = 5  # the data source's timeInterval
VARIABLE = re.compile(r"\$([A-Za-z_]\w*)|\$\{([A-Za-z_]\w*)(?::\w+)?\}|\[\[([A-Za-z_]\w*)\]\]")
NO_QUERIES: Final = frozenset({"row", "text"})


class DashboardError(Exception):
    """A dashboard that cannot be drawn; the message says why."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time of a picture, in seconds since 1970, and how far apart its samples are."""

    begin: float
    end: float
    step: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def builtins(self) -> dict[str, str]:
        """What Grafana fills in by itself."""
        rate, interval = max(self.step + SCRAPE_S, 4 * SCRAPE_S), round(self.step)
        times = {
            "__rate_interval": f"{round(rate)}s",
            "__interval": f"{interval}s",
            "__range": f"{round(self.seconds)}s",
        }
        in_ms = {
            "__interval_ms": interval * 1000,
            "__range_ms": round(self.seconds * 1000),
            "__range_s": round(self.seconds),
        }
        return times | {name: str(value) for name, value in in_ms.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """In Grafana's units: 24 columns, rows of 30 pixels."""

    x: int
    y: int
    w: int
    h: int

    @classmethod
    def of(cls, panel: Json) -> "Place":
        given = panel.get("gridPos", {})
        return cls(*(int(given.get(key, 0)) for key in "xywh"))

    def moved(self, rows: int) -> "Place":
        return Place(self.x, self.y + rows, self.w, self.h)


@dataclass(frozen=True, slots=True)
class Target:
    """One query. `is_now`: the value now, not its course."""

    ref: str
    expr: str
    legend: str
    is_now: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `config`: its fieldConfig."""

    kind: str
    title: str
    description: str
    place: Place
    targets: Sequence[Target] = ()
    options: Json = field(default_factory=dict)
    config: Json = field(default_factory=dict)
    transformations: Sequence[Json] = ()

    @property
    def custom(self) -> Json:
        found: Json = self.config.get("defaults", {}).get("custom", {})
        return found

    @property
    def no_value(self) -> str | None:
        """What stands there when nothing is meant to be there."""
        found = self.config.get("defaults", {}).get("noValue")
        return None if found is None else str(found)


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard. `chosen`: its variables with what they stand for."""

    title: str
    panels: Sequence[Panel]
    chosen: Mapping[str, str]


def read(board: object, given: Mapping[str, str], span: Span) -> Board:
    """From a dashboard's JSON and the variables given. Raises DashboardError."""
    if not isinstance(board, dict) or not isinstance(board.get("panels"), list):
        raise DashboardError("it is no dashboard: it has no list of panels")
    chosen = variables(board, given)
    try:
        panels = [panel_of(raw, place, chosen, span) for raw, place in placed(board["panels"])]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DashboardError(f"a panel is not as Grafana has it: {error!r}") from error
    return Board(str(board.get("title", "")), panels, chosen)


def variables(board: Json, given: Mapping[str, str]) -> dict[str, str]:
    """Every variable of the dashboard that has a value: given, all, or what it was saved with."""
    declared = {entry["name"]: entry for entry in board.get("templating", {}).get("list", ())}
    if unknown := sorted(set(given) - set(declared)):
        raise DashboardError(
            f"it has no variable {', '.join(unknown)}; there are: {', '.join(declared) or 'none'}"
        )
    values = {name: given.get(name, default(entry)) for name, entry in declared.items()}
    return {name: value for name, value in values.items() if value is not None}


def default(variable: Json) -> str | None:
    """What a variable stands for where none was given."""
    if variable.get("includeAll"):
        return str(variable.get("allValue") or ALL)
    saved = variable.get("current", {}).get("value") or variable.get("query")
    return "|".join(map(str, saved)) if isinstance(saved, list) else saved if isinstance(saved, str) else None


def filled(text: str, values: Mapping[str, str]) -> str:
    """With every variable's value in its place. Raises DashboardError for one without."""

    def value(found: re.Match[str]) -> str:
        name = next(filter(None, found.groups()))
        if name not in values:
            raise DashboardError(f"variable {name} has no value: --var {name}=...")
        return values[name]

    return VARIABLE.sub(value, text)


def placed(panels: Sequence[Json]) -> Iterator[tuple[Json, Place]]:
    """Every panel with its place, those of a collapsed row below it, and what comes after moved down."""
    down = 0
    for raw in panels:
        place = Place.of(raw).moved(down)
        yield raw, place
        inner = raw.get("panels") or ()
        top = min((Place.of(one).y for one in inner), default=0)
        for one in inner:
            yield one, Place.of(one).moved(place.y + place.h - top)
        down += max((Place.of(one).y + Place.of(one).h - top for one in inner), default=0)


def panel_of(raw: Json, place: Place, chosen: Mapping[str, str], span: Span) -> Panel:
    spoken = {name: ALL_SAID if value == ALL else value for name, value in chosen.items()}
    title, description, options = raw.get("title", ""), raw.get("description", ""), raw.get("options", {})
    targets = [target_of(one, raw["type"], {**chosen, **span.builtins()}) for one in shown(raw)]
    return Panel(
        kind=raw["type"],
        title=spoken_of(title, spoken),
        description=spoken_of(description, spoken),
        place=place,
        targets=targets if raw["type"] not in NO_QUERIES else (),
        options=options,
        config=raw.get("fieldConfig", {}),
        transformations=raw.get("transformations", ()),
    )


def spoken_of(text: str, spoken: Mapping[str, str]) -> str:
    """A text for people; what is no variable stays as it is."""
    return VARIABLE.sub(lambda found: spoken.get(next(filter(None, found.groups())), found[0]), text)


def shown(raw: Json) -> list[Json]:
    """The panel's queries, without those that are hidden."""
    return [target for target in raw.get("targets") or () if target.get("expr") and not target.get("hide")]


def target_of(raw: Json, kind: str, values: Mapping[str, str]) -> Target:
    """A query that is for both, now and the course, is asked for the course."""
    is_now = bool(raw.get("instant")) and not raw.get("range")
    legend = spoken_of(raw.get("legendFormat") or "", values)
    return Target(raw.get("refId", "A"), filled(raw["expr"], values), legend, is_now or kind == "table")
