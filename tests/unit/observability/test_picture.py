"""Pictures of dashboards: values and axes as people read them, queries as Grafana asks them, and nothing hidden."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree

import pytest
import yaml

from observability.picture import charts, tiles, units
from observability.picture.__main__ import main, span_of
from observability.picture.charts import Key, legend, stretches
from observability.picture.draw import draw, problem
from observability.picture.panels import SCRAPE_S, DashboardError, Panel, Span, filled, read
from observability.picture.series import Filled, Series, look_of, named, series_of
from observability.picture.svg import Box, fitted, width_of, wrapped

ROOT = Path(__file__).resolve().parents[3]
SPAN = Span(1000, 1600, 5)
STATES = [
    {
        "type": "value",
        "options": {"1": {"text": "ready", "color": "green"}, "2": {"text": "down", "color": "red"}},
    },
    {"type": "range", "options": {"from": 3, "to": None, "result": {"text": "odd", "color": "#123456"}}},
]
TIMELINE = {"mappings": STATES}


def raw(kind: str, title: str = "Question?", *exprs: str, **more: Any) -> dict[str, Any]:
    """A panel as Grafana has it; `more`: what is not as usual."""
    targets = [
        {"refId": chr(65 + at), "expr": expr, "legendFormat": "{{a}}"} for at, expr in enumerate(exprs)
    ]
    place = {"x": 0, "y": 0, "w": 12, "h": 8}
    return {"type": kind, "title": title, "gridPos": place, "targets": targets, "fieldConfig": {}, **more}


def board(*panels: dict[str, Any], variables: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"title": "A <board>", "panels": list(panels), "templating": {"list": variables or []}}


def panel(kind: str, *exprs: str, **defaults: Any) -> Panel:
    given = raw(kind, "Question?", *exprs, fieldConfig={"defaults": defaults})
    return read(board(given), {}, SPAN).panels[0]


def series(name: str, *values: float, begin: float = 1000, step: float = 5, **labels: str) -> Series:
    return Series(name, labels, [(begin + at * step, value) for at, value in enumerate(values)])


def texts(svg: str) -> list[str]:
    """Everything that is written in a picture, which must be valid XML."""
    return [
        found.text or "" for found in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def drawn(*filled_panels: Filled) -> list[str]:
    return texts(draw(read(board(), {}, SPAN), filled_panels, SPAN))


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "bytes", "0 B"), (1536, "bytes", "1.5 KiB"), (80e9, "decbytes", "80 GB"), (2.5e6, "Bps", "2.5 MB/s"),
        (0.734, "percentunit", "73.4%"), (12, "percent", "12%"), (0.0125, "s", "12.5 ms"), (90, "s", "1.5 min"),
        (0, "s", "0 s"), (7200, "s", "2 h"), (250, "ms", "250 ms"), (1234, "short", "1.23 K"), (7, "short", "7"),
        (1200, "reqps", "1.2K req/s"), (342, "watt", "342 W"), (71, "celsius", "71 °C"), (-1500, "short", "-1.5 K"),
        (12, "tokens/s", "12 tokens/s"), (3, "suffix:GPUs", "3 GPUs"), (float("inf"), "s", "∞"),
        (0.0004, "none", "0.0004"),
    ],
)  # fmt: skip
def test_values_are_written_with_their_unit(value: float, unit: str, expected: str) -> None:
    assert units.said(value, unit) == expected


def test_decimals_are_as_asked() -> None:
    assert units.said(0.5, "s", 2) == "500.00 ms"


@pytest.mark.parametrize(
    ("low", "high", "unit", "expected"),
    [
        (0, 0.9, "short", ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (0, 900, "reqps", ["0 req/s", "200 req/s", "400 req/s", "600 req/s", "800 req/s", "1K req/s"]),
        (0, 100 << 20, "bytes", ["0 B", "32 MiB", "64 MiB", "96 MiB", "128 MiB"]),
        (0, 120, "s", ["0 s", "30 s", "1 min", "1.5 min", "2 min"]),
        (100_000, 100_002, "short", ["100.0000 K", "100.0005 K", "100.0010 K", "100.0015 K", "100.0020 K"]),
    ],
)
def test_ticks_are_round_in_their_unit_and_told_apart(
    low: float, high: float, unit: str, expected: list[str]
) -> None:
    """In powers of two for bytes, in minutes for long times; values that are close have digits enough."""
    assert units.labels(units.ticks(low, high, 5, unit), unit) == expected


def test_times_have_round_ticks_too() -> None:
    at = 1_700_000_000
    assert units.clock(units.time_ticks(at, at + 600, 5)) == ["22:14", "22:16", "22:18", "22:20", "22:22"]
    assert units.clock(units.time_ticks(at, at + 60, 4))[:2] == ["22:13:30", "22:13:45"]


def test_a_scrape_is_as_long_as_the_data_source_says() -> None:
    source = yaml.safe_load(
        (ROOT / "observability/grafana/provisioning/datasources/prometheus.yaml").read_text()
    )
    assert source["datasources"][0]["jsonData"]["timeInterval"] == f"{SCRAPE_S}s"


def test_grafanas_variables_are_filled() -> None:
    """$__rate_interval is four scrapes at least; a long span has wider steps."""
    assert SPAN.builtins()["__rate_interval"] == "20s"
    assert SPAN.builtins()["__range"] == "600s"
    assert filled("x[$__rate_interval] y[${__range}]", SPAN.builtins()) == "x[20s] y[600s]"
    day = span_of(24 * 60, 1_700_000_001)
    assert (day.step, day.end % day.step, day.builtins()["__rate_interval"]) == (360, 0, "365s")


def test_a_dashboards_own_variables_are_all_or_as_given() -> None:
    """In a query and in a title; `$1` of label_replace is none."""
    model = {"name": "model", "type": "query", "includeAll": True, "multi": True, "current": {}}
    asked = board(raw("stat", "Of $model", 'up{m=~"$model",s="$slug"} label_replace($1)'), variables=[model])
    asked["templating"]["list"].append({"name": "slug", "type": "custom", "current": {"value": ["a", "b"]}})
    all_, one = read(asked, {}, SPAN).panels[0], read(asked, {"model": "x", "slug": "y"}, SPAN).panels[0]
    assert (all_.title, all_.targets[0].expr) == ("Of All", 'up{m=~".*",s="a|b"} label_replace($1)')
    assert (one.title, one.targets[0].expr) == ("Of x", 'up{m=~"x",s="y"} label_replace($1)')


@pytest.mark.parametrize(
    ("asked", "given", "says"),
    [
        (board(raw("stat", "t", "up{a='$b'}")), {}, "variable b has no value"),
        (board(), {"nothing": "1"}, "no variable nothing"),
        ([], {}, "no list of panels"),
        ({"panels": [{"title": "no type"}]}, {}, "not as Grafana has it"),
    ],
)
def test_what_is_no_dashboard_is_refused(asked: object, given: dict[str, str], says: str) -> None:
    with pytest.raises(DashboardError, match=says):
        read(asked, given, SPAN)


def test_panels_of_a_collapsed_row_are_drawn_below_it() -> None:
    """And what follows is moved down by as much."""
    inner = raw("stat", "inner", gridPos={"x": 0, "y": 40, "w": 6, "h": 4})
    row = raw("row", "row", gridPos={"x": 0, "y": 0, "w": 24, "h": 1}, panels=[inner], collapsed=True)
    below = raw("stat", "below", gridPos={"x": 0, "y": 1, "w": 6, "h": 4})
    places = {panel.title: panel.place.y for panel in read(board(row, below), {}, SPAN).panels}
    assert places == {"row": 0, "inner": 1, "below": 5}


def test_a_query_is_for_now_or_for_the_course() -> None:
    """As its target says; a table's is always for now."""
    both = {"expr": "up", "instant": True, "range": True}
    targets = [{"expr": "up"}, {"expr": "up", "instant": True}, both, {"expr": "up", "hide": True}]
    asked = read(board(raw("stat", targets=targets), raw("table", "t", "up")), {}, SPAN)
    assert [[target.is_now for target in one.targets] for one in asked.panels] == [
        [False, True, False],
        [True],
    ]


@pytest.mark.parametrize(
    ("legend_format", "expected"),
    [
        ("{{a}} {{ b }}", "1 2"),
        ("{{a}} {{missing}}", "1"),
        ("", 'm{a="1", b="2"}'),
        ("__auto", 'm{a="1", b="2"}'),
        ("p95", "p95"),
    ],
)
def test_series_are_named_by_the_legend(legend_format: str, expected: str) -> None:
    assert named(legend_format, {"__name__": "m", "a": "1", "b": "2"}, "m") == expected
    assert named("", {}, "sum(m)") == "sum(m)"


def test_prometheus_answers_of_every_shape_are_read() -> None:
    """NaN is no sample, and a series of nothing else no series."""
    target = panel("timeseries", "up").targets[0]
    matrix = [
        {"metric": {"a": "x"}, "values": [[1, "1"], [2, "NaN"], [3, "+Inf"]]},
        {"metric": {}, "values": [[1, "NaN"]]},
    ]
    assert series_of({"resultType": "matrix", "result": matrix}, target) == [
        Series("x", {"a": "x"}, [(1, 1), (3, float("inf"))])
    ]
    vector = {"resultType": "vector", "result": [{"metric": {"a": "x"}, "value": [1, "2"]}]}
    assert series_of(vector, target) == [Series("x", {"a": "x"}, [(1, 2)])]
    assert series_of({"resultType": "scalar", "result": [1, "2"]}, target)[0].values == [2]


def test_lines_break_where_samples_are_missing() -> None:
    one = Series("a", {}, [(0, 1), (5, 1), (20, 1)])
    assert [len(run) for run in one.runs(5)] == [2, 1]
    svg = "".join(charts.lines(Filled(panel("timeseries", "up"), Span(0, 30, 5), [one]), Box(0, 0, 400, 200)))
    assert (svg.count('<path class="line"'), svg.count("<circle")) == (1, 1)


def test_stacked_series_stand_upon_each_other() -> None:
    assert charts.stacked([series("a", 1, 2), series("b", 10, 20)])[1] == [(1000, 1, 11), (1005, 2, 22)]


def test_mappings_thresholds_and_overrides_decide_word_and_colour() -> None:
    steps = [{"color": "green", "value": None}, {"color": "#ff0000", "value": 10}]
    one = panel("stat", mappings=STATES, thresholds={"steps": steps}, unit="s")
    look = look_of(one)
    assert [look.text(value) for value in (1, 2, 7, 0.5)] == ["ready", "down", "odd", "500 ms"]
    assert [look.colour(value) for value in (7, 0.5)] == ["#123456", look.colour(0)]
    plain = panel("stat", thresholds={"steps": steps})
    assert [look_of(plain).colour(value) for value in (9, 10)] == [look.colour(0), "#ff0000"]
    matcher = {"id": "byName", "options": "b"}
    config = {"overrides": [{"matcher": matcher, "properties": [{"id": "unit", "value": "bytes"}]}]}
    assert look_of(Panel("stat", "", "", one.place, config=config), {"b"}).text(2048) == "2 KiB"


def test_states_are_joined_while_they_last() -> None:
    """Until the next sample; a gap is no state."""
    states = Filled(panel("state-timeline", "x", **TIMELINE), SPAN, [series("w", 1, 1, 2)])
    found = stretches(states, states.series[0])
    assert [(state.begin, state.end, state.name) for state in found] == [
        (1000, 1010, "ready"),
        (1010, 1015, "down"),
    ]
    words = drawn(states)
    assert {"w", "ready", "down"} <= set(words)
    apart = Series("w", {}, [(1000, 1.0), (1100, 1.0)])
    assert [(state.begin, state.end) for state in stretches(states, apart)] == [(1000, 1005), (1100, 1105)]


def test_a_legend_tells_what_it_has_no_room_for() -> None:
    """Every entry is shown, or counted; none is wider than the box."""
    keys = [Key("#000", f"a series with a long name, number {number}") for number in range(40)]
    rows = legend(keys, Box(0, 0, 500, 200))
    assert all(charts.length(row) <= 500 for row in rows)
    assert rows[-1][-1].name == f"+ {40 - sum(map(len, rows)) + 1} more"
    assert legend(keys[:1], Box(0, 0, 500, 200)) == [keys[:1]]


def test_texts_keep_to_their_room() -> None:
    assert fitted("short", 100) == "short"
    assert width_of(fitted("a rather long text that does not fit", 100)) <= 100
    assert all(
        width_of(line) <= 100
        for line in wrapped("words and an_extraordinarily_long_word_without_blanks", 100)
    )


def test_a_table_has_the_values_of_several_queries_side_by_side() -> None:
    """Columns are picked, named and ordered as the panel says; rows are sorted."""
    steps = [
        {"id": "organize", "options": {"excludeByName": {"job": True}, "renameByName": {"Value #A": "Up"}}}
    ]
    given = raw(
        "table",
        "t",
        "up",
        "took",
        transformations=steps,
        options={"sortBy": [{"displayName": "Up", "desc": True}]},
    )
    up = [series("", 1, instance="x", job="j"), series("", 2, instance="y", job="j")]
    took = [Series("", {"instance": "y"}, [(1000, 7.0)], "B")]
    one = Filled(read(board(given), {}, SPAN).panels[0], SPAN, [*up, *took])
    rows = tiles.rows_of(one)
    heads = tiles.columns_of(one, rows)
    assert heads == {"instance": "instance", "Value #A": "Up", "Value #B": "Value #B"}
    assert [row.cells.get("Value #B") for row in tiles.in_order(one, rows, heads)] == [7, None]
    assert {"instance", "Up", "x", "y", "7"} <= set(drawn(one))


@pytest.mark.parametrize("kind", ["timeseries", "stat", "gauge", "bargauge", "table", "state-timeline"])
@pytest.mark.parametrize("count", [1, 3, 60])
def test_every_kind_of_panel_is_drawn(kind: str, count: int) -> None:
    """However many series there are, infinite values among them; the SVG is valid and has no number that is none."""
    many = [series(f"<{at}>", at, at + 1, float("inf"), a=str(at)) for at in range(count)]
    svg = draw(read(board(), {}, SPAN), [Filled(panel(kind, "up"), SPAN, many)], SPAN)
    assert "Question?" in texts(svg)
    assert "nan" not in svg
    assert '="inf' not in svg


def test_a_panel_without_data_says_so() -> None:
    """In red; one that may be empty says what it was told to; a broken query has Prometheus' words."""
    empty, calm = Filled(panel("stat", "up"), SPAN), Filled(panel("stat", "up", noValue="none"), SPAN)
    broken, unknown = (
        Filled(panel("stat", "up"), SPAN, problem="parse error"),
        Filled(panel("logs", "up"), SPAN),
    )
    assert [problem(one) for one in (empty, calm, broken)] == ["no data", "", "parse error"]
    assert problem(unknown) == "a panel of type logs cannot be drawn"
    assert {"no data", "none", "parse error"} <= set(drawn(empty, calm, broken))
    assert problem(Filled(panel("row"), SPAN)) == problem(Filled(panel("text"), SPAN)) == ""


class Answers(BaseHTTPRequestHandler):
    """Prometheus, as far as it knows of `up`."""

    asked: list[tuple[str, dict[str, list[str]]]]

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self.asked.append((self.path, form))
        query = form["query"][0]
        one = {
            "metric": {"a": "x"},
            "value": [1, "0.5"],
            "values": [[float(form.get("end", ["1"])[0]), "0.5"]],
        }
        one.pop("value" if self.path.endswith("query_range") else "values")
        shape = "matrix" if self.path.endswith("query_range") else "vector"
        data = {"resultType": shape, "result": [one] if query == "up" else []}
        wrong = {"status": "error", "errorType": "bad_data", "error": "parse error"}
        said = {"(": (400, wrong), "other": (200, ["no Prometheus"])}
        self.answer(*said.get(query, (200, {"status": "success", "data": data})))

    def answer(self, status: int, said: object) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, dict[str, list[str]]]]]]:
    handler = type("Handler", (Answers,), {"asked": []})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", handler.asked  # type: ignore[attr-defined]
    listening.shutdown()
    thread.join()
    listening.server_close()


def run(folder: Path, prometheus: str, dashboard: object) -> tuple[int, Path]:
    (folder / "board.json").write_text(json.dumps(dashboard) if not isinstance(dashboard, str) else dashboard)
    out = folder / "made/board.svg"
    return main([str(folder / "board.json"), "--prometheus", prometheus, "--out", str(out)]), out


def test_a_dashboard_is_drawn_from_what_prometheus_answers(
    tmp_path: Path, server: tuple[str, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Courses over ten minutes, values of now; what is empty or refused is named, and the exit code says so."""
    address, asked = server
    now = raw("stat", "Now", targets=[{"expr": "up", "instant": True, "refId": "A", "legendFormat": "{{a}}"}])
    assert run(tmp_path, address, board(raw("timeseries", "Course", "up"), now))[0] == 0
    (course, form), (instant, _) = asked
    assert (course, instant) == ("/api/v1/query_range", "/api/v1/query")
    assert float(form["end"][0]) - float(form["start"][0]) == 600
    code, out = run(tmp_path, address, board(now, raw("stat", "Empty", "down"), raw("stat", "Broken", "(")))
    assert code == 1
    said = capsys.readouterr().err
    assert "Empty: no data" in said
    assert "Broken: bad_data: parse error" in said
    assert {"Now", "0.5", "no data", "bad_data: parse error", "A <board>"} <= set(texts(out.read_text()))


def test_what_stands_in_the_way_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody that answers, no JSON: exit code 2, and no picture."""
    code, out = run(tmp_path, "http://127.0.0.1:1", board(raw("stat", "Now", "up")))
    assert (code, out.exists()) == (2, False)
    assert "http://127.0.0.1:1 does not answer" in capsys.readouterr().err
    assert run(tmp_path, "http://127.0.0.1:1", "{")[0] == 2


def test_another_server_is_no_prometheus(
    tmp_path: Path, server: tuple[str, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its answer is."""
    assert run(tmp_path, server[0], board(raw("stat", "Now", "other")))[0] == 2
    assert "answers 200, but not as Prometheus" in capsys.readouterr().err
