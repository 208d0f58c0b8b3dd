"""What dashboards are made of: panels of a few kinds, each with a title, a description of what to do, and queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = shared.DataSourceRef(type_val="prometheus", uid="prometheus")
WIDE, HALF, THIRD, QUARTER = 24, 12, 8, 6
LINES_HIGH, NUMBERS_HIGH = 8, 4
GREY, BLUE, GREEN, AMBER, RED = "#8e8e8e", "blue", "green", "orange", "red"

Panel = (
    timeseries.Panel | stat.Panel | tables.Panel | statetimeline.Panel | bargauge.Panel
)  # a builder of one


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and how its series are called."""

    expr: str
    legend: str = ""

    def target(self, ref: str, *, instant: bool) -> prometheus.Dataquery:
        """As a panel takes it. `instant`: the value now instead of the course."""
        made = prometheus.Dataquery().ref_id(ref).datasource(SOURCE).expr(self.expr)
        made = made.legend_format(self.legend or "__auto")
        return made.instant() if instant else made.range()


@dataclass(frozen=True, slots=True)
class Scale:
    """How values are written, and from which on they are doubtful (`amber`) or bad (`red`)."""

    unit: str = "short"
    amber: float | None = None
    red: float | None = None
    most: float | None = None

    @property
    def marks(self) -> list[tuple[float | None, str]]:
        """Thresholds, lowest first."""
        found: list[tuple[float | None, str]] = [(None, GREEN)]
        found += [(self.amber, AMBER)] if self.amber is not None else []
        return found + ([(self.red, RED)] if self.red is not None else [])


SECONDS, BYTES, RATIO = Scale("s"), Scale("bytes"), Scale("percentunit", most=1)
PER_S, TOKENS, REQUESTS = Scale("ops"), Scale("tokens/s"), Scale("reqps")


Kind = TypeVar("Kind", timeseries.Panel, stat.Panel, tables.Panel, statetimeline.Panel, bargauge.Panel)


def described(
    panel: Kind, title: str, advice: str, to: Sequence[str], width: int, height: int = LINES_HIGH
) -> Kind:
    """A panel in words. `title`: a question, or a quantity with its unit; `advice`: what to do when it is bad;
    `to`: dashboards that lead on to the cause, by uid."""
    panel = panel.title(title).description(advice).links(links(to)).datasource(SOURCE)
    return panel.span(width).height(height)


def lines(
    title: str,
    advice: str,
    scale: Scale,
    *queries: Query,
    to: Sequence[str] = (),
    width: int = THIRD,
    stacked: bool = False,
) -> timeseries.Panel:
    """A course over time, a line for each series."""
    panel = described(timeseries.Panel(), title, advice, to, width).unit(scale.unit).min(0)
    panel = panel.thresholds(thresholds(scale)).fill_opacity(60 if stacked else 0).line_width(1)
    panel = panel.legend(legend()).tooltip(common.VizTooltipOptions().mode(shared.TooltipDisplayMode.MULTI))
    if scale.most is not None:
        panel = panel.max(scale.most)
    if len(scale.marks) > 1:
        drawn = common.GraphThresholdsStyleConfig().mode(shared.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(drawn)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(shared.StackingMode.NORMAL))
    return panel.targets(targets(queries, instant=False))


def numbers(
    title: str,
    advice: str,
    scale: Scale,
    *queries: Query,
    to: Sequence[str] = (),
    width: int = QUARTER,
    none: str = "none",
) -> stat.Panel:
    """One large figure for each series, coloured by its thresholds. `none`: what stands there without a series."""
    panel = described(stat.Panel(), title, advice, to, width, NUMBERS_HIGH).unit(scale.unit)
    panel = panel.thresholds(thresholds(scale)).no_value(none)
    panel = panel.color_mode(shared.BigValueColorMode.VALUE).graph_mode(shared.BigValueGraphMode.NONE)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel.targets(targets(queries, instant=True))


def bars(
    title: str, advice: str, scale: Scale, *queries: Query, to: Sequence[str] = (), width: int = THIRD
) -> bargauge.Panel:
    """A bar for each series, as it is now."""
    panel = described(bargauge.Panel(), title, advice, to, width).unit(scale.unit).min(0)
    panel = panel.thresholds(thresholds(scale)).orientation(shared.VizOrientation.HORIZONTAL)
    panel = panel.display_mode(shared.BarGaugeDisplayMode.BASIC)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if scale.most is not None:
        panel = panel.max(scale.most)
    return panel.targets(targets(queries, instant=True))


def states(
    title: str,
    advice: str,
    names: Mapping[int, tuple[str, str]],
    query: Query,
    to: Sequence[str] = (),
    width: int = HALF,
) -> statetimeline.Panel:
    """Which state each series was in, and when. `names`: by value, the word and its colour."""
    panel = described(statetimeline.Panel(), title, advice, to, width).mappings([mapping(names)])
    panel = panel.show_value(shared.VisibilityMode.AUTO).row_height(0.8).merge_values(True)
    panel = panel.legend(legend()).color_scheme(
        dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)
    )
    return panel.targets(targets([query], instant=False))


def rows(
    title: str,
    advice: str,
    scale: Scale,
    columns: Sequence[str],
    query: Query,
    to: Sequence[str] = (),
    width: int = WIDE,
    height: int = LINES_HIGH,
) -> tables.Panel:
    """A table: a row for each series, these of its labels as columns, then its value."""
    panel = described(tables.Panel(), title, advice, to, width, height).unit(scale.unit).no_value("nothing")
    panel = panel.thresholds(thresholds(scale)).show_header(True)
    panel = panel.with_target(query.target("A", instant=True).format(PromQueryFormat.TABLE))
    order = {name: at for at, name in enumerate([*columns, "Value"])}
    kept = models.DataTransformerConfig("filterFieldsByName", options={"include": {"names": [*order]}})
    placed = models.DataTransformerConfig(
        "organize", options={"indexByName": order, "renameByName": {"Value": query.legend}}
    )
    return panel.with_transformation(kept).with_transformation(placed)


def targets(queries: Sequence[Query], *, instant: bool) -> list[Builder[Dataquery]]:
    return [query.target(chr(ord("A") + at), instant=instant) for at, query in enumerate(queries)]


def thresholds(scale: Scale) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value, colour) for value, colour in scale.marks]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def mapping(names: Mapping[int, tuple[str, str]]) -> models.ValueMap:
    results = {
        str(value): models.ValueMappingResult(text=word, color=colour, index=at)
        for at, (value, (word, colour)) in enumerate(names.items())
    }
    return models.ValueMap(results)


def legend() -> common.VizLegendOptions:
    placed = common.VizLegendOptions().show_legend(True).display_mode(shared.LegendDisplayMode.LIST)
    return placed.placement(shared.LegendPlacement.BOTTOM)


def links(uids: Sequence[str]) -> list[Builder[models.DashboardLink]]:
    """To dashboards, over the same time and with the same model."""
    return [
        dashboard.DashboardLink(f"to {uid.removeprefix('octet-')}")
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/{uid}")
        .keep_time(True)
        .include_vars(True)
        for uid in uids
    ]


def choice(name: str, query: str) -> dashboard.QueryVariable:
    """A variable over the values of a label, several or all at once."""
    made = dashboard.QueryVariable(name).label(name).datasource(SOURCE).query(query)
    made = made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True)
    made = made.sort(models.VariableSort.ALPHABETICAL_ASC).all_value(".*")
    return made.current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard. `uid` is fixed, so that links and bookmarks stay."""

    uid: str
    title: str
    help: str
    rows: Sequence[Row]
    choices: Sequence[dashboard.QueryVariable] = ()

    def build(self) -> models.Dashboard:
        """As Grafana's own types have it."""
        made = dashboard.Dashboard(self.title).uid(self.uid).description(self.help).tags(["octet"])
        made = made.readonly().refresh("10s").time("now-1h", "now").timezone("browser").link(others())
        made = made.tooltip(models.DashboardCursorSync.CROSSHAIR)
        for variable in self.choices:
            made = made.with_variable(variable)
        for row in self.rows:
            made = made.with_row(dashboard.Row(row.title))
            for panel in row.panels:
                made = made.with_panel(panel)
        return numbered(made.build())


def others() -> dashboard.DashboardLink:
    """All dashboards of the stack, in the head of each."""
    link = dashboard.DashboardLink("Octet").type(models.DashboardLinkType.DASHBOARDS).tags(["octet"])
    return link.keep_time(True).include_vars(True)


def numbered(board: models.Dashboard) -> models.Dashboard:
    """Each panel with an id of its own, in order, so that links to one panel stay."""
    for number, panel in enumerate(board.panels or (), 1):
        panel.id_val = number
    return board
