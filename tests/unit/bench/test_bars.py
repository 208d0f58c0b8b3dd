"""The bars: which side of them is missed, and what a run without the peers leaves unsaid."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import processes
from bench.bars import Verdict, compared, judge
from bench.figures import Figure
from bench.marked import marks, replaced
from bench.page import PAGE, PLOTTED, TARGET, written
from bench.plot import cost_plot
from bench.processes import Layout, layout, parse_cpus
from bench.record import APART, SHARED, Entrant, Record, Row, Sample, Title, load, save
from bench.report import report
from bench.scenarios import GROWTH, JSON, MANY, THOUSAND, all_scenarios
from bench.servers import BASE, MAIN, TWO

OTHER, GROWN = "vllm-router", "gateway-64-workers"


def sample(us: float, ttfb: float = 1, rss: float = 50) -> Sample:
    return Sample(us, 1, 1, 1, 1, ttfb, rss, 1)


def record(*rows: Row) -> Record:
    titles = [Title(scenario.key, scenario.title, scenario.unit) for scenario in all_scenarios()]
    entrants = [
        Entrant(MAIN, "gateway", "gateway"),
        Entrant(OTHER, "a <router>", "rust"),
        Entrant(BASE, "base", "grown"),
        Entrant(GROWN, "grown", "grown"),
        Entrant("smg", "smg", "rust", "smg is not installed: make bench-peers"),
    ]
    facts = {"date": "2026-11-21", "rounds": "1", "host": "a host", "python": "Python"}
    return Record(facts, titles, entrants, list(rows))


def missed(measured: Record) -> list[str]:
    return [verdict.name for verdict in judge(measured, None, None) if verdict.is_missed]


@pytest.mark.parametrize(
    ("scenario", "ours", "theirs", "misses"),
    [(JSON, 50, 50, 0), (JSON, 51, 50, 1), (MANY, 20, 20, 0), (MANY, 21, 20, 1), (THOUSAND, 21, 20, 0)],
)
def test_the_gateway_is_judged_against_the_best_router(
    scenario: str, ours: float, theirs: float, misses: int
) -> None:
    """At most the router's CPU, a tenth more at a thousand streams; a slower router beside it changes nothing."""
    rows = [Row(scenario, MAIN, [sample(ours)]), Row(scenario, OTHER, [sample(theirs)])]
    assert len(missed(record(*rows, Row(scenario, "smg", [sample(1000)])))) == misses


def test_a_thousand_streams_have_bars_of_their_own() -> None:
    """10 ms to the first byte for 99 of 100, 120 MiB."""
    assert missed(record(Row(THOUSAND, MAIN, [sample(1, 10, 120)]))) == []
    assert len(missed(record(Row(THOUSAND, MAIN, [sample(1, 10.1, 121)])))) == 2


@pytest.mark.parametrize(
    ("base", "grown", "state"),
    [
        ((50,), (57,), "holds"),
        ((50,), (58,), "missed"),
        ((50, 48, 52), (51, 49, 53), "holds"),
        ((50, 40, 60), (52, 41, 61), "inconclusive"),
        ((50, 40, 60), (80, 60, 90), "missed"),
    ],
)
def test_growth_is_never_excused_by_the_spread(
    base: tuple[float, ...], grown: tuple[float, ...], state: str
) -> None:
    """15 % more is allowed. Rounds that overlap beyond that prove nothing; medians beyond it are missed."""
    rows = [Row(GROWTH, BASE, list(map(sample, base))), Row(GROWTH, GROWN, list(map(sample, grown)))]
    (verdict,) = [one for one in judge(record(*rows), None, None) if one.name.endswith("64 workers")]
    assert verdict.state == state
    assert verdict.is_missed == (state == "missed")


def test_at_least_is_judged_by_the_other_side() -> None:
    """Fewer is worse: here the least of ours against the most of theirs decides."""
    bar = {"bar": 1.0, "most": False}
    assert compared("x", Figure(12, 11, 13), Figure(10, 9, 10), **bar).state == "holds"
    assert compared("x", Figure(12, 9, 13), Figure(10, 9, 11), **bar).state == "inconclusive"
    assert compared("x", Figure(9, 8, 13), Figure(10, 9, 11), **bar).state == "missed"


def pair(one: float, two: float, cores: str) -> Record:
    """Requests/s of one process, and of two."""
    samples = [replace(sample(50), units_per_s=speed) for speed in (one, two)]
    rows = [Row(GROWTH, key, [found]) for key, found in zip((BASE, TWO), samples, strict=True)]
    measured = record(*rows)
    return replace(measured, facts=measured.facts | {"cores": cores})


@pytest.mark.parametrize(("two", "misses"), [(18_000, 0), (17_900, 1)])
def test_two_processes_make_nearly_twice_one(two: float, misses: int) -> None:
    assert len(missed(pair(10_000, two, APART))) == misses


def test_two_processes_that_share_a_core_with_their_load_are_not_judged() -> None:
    """And the report says so."""
    measured = pair(10_000, 11_000, SHARED)
    assert not missed(measured)
    assert "skipped  not measured, at least 1.80" in report(measured, judge(measured, None, None))


def test_cpus_as_linux_lists_them() -> None:
    assert parse_cpus("0-1,8\n") == [0, 1, 8]
    assert parse_cpus("3") == [3]


def test_threads_of_one_core_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight threads of four cores every other is taken; of four threads of two cores all, for want of more."""
    monkeypatch.setattr(processes, "threads", lambda core: [core - core % 2, core - core % 2 + 1])
    assert layout(list(range(8))) == Layout((0, 2), 4, 6)
    assert layout([0, 1, 2, 3]) == Layout((0, 1), 2, 3)


def test_a_core_for_each_where_there_are_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "threads", lambda core: [core])
    assert layout([1]) == Layout((1, 1), 1, 1)
    assert layout([3, 5]) == Layout((3, 5), 5, 5)
    assert layout([0, 1, 2]).is_shared
    assert layout([0, 1, 2, 3, 4]) == Layout((0, 1), 2, 3)
    assert not layout([0, 1, 2, 3]).is_shared


def test_absolute_bars_hold_without_peers() -> None:
    """With nobody to compare with, what is left is the figure itself."""
    measured = record(Row(JSON, MAIN, [sample(91)]), Row(MANY, MAIN, [sample(30)]))
    verdicts = judge(measured, 90, 30)
    assert [verdict.name for verdict in verdicts if verdict.is_missed] == ["CPU µs a request"]
    assert Verdict("requests/s per core, against the faster Rust router", None, 1.0, most=False) in verdicts


def test_a_report_says_what_is_absent_and_what_failed() -> None:
    """Loudly, in rows of their own; nothing is made of figures that are not there."""
    failed = Row(JSON, OTHER, failure="status 404")
    text = report(measured := record(Row(JSON, MAIN, [sample(50)]), failed), judge(measured, None, None))
    assert "ABSENT  smg: smg is not installed: make bench-peers" in text
    assert "a <router>: FAILED: status 404" in text
    assert "skipped  not measured, at least 1.00: requests/s per core" in text


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    """What is read is what was written, failures and absences too."""
    measured = record(Row(JSON, MAIN, [sample(50), sample(51)]), Row(JSON, OTHER, failure="status 404"))
    save(tmp_path / "run.json", measured)
    assert load(tmp_path / "run.json") == measured


def test_the_page_takes_the_figures_between_its_marks() -> None:
    """All else stays; the page in the repository has the marks."""
    measured = record(Row(JSON, MAIN, [sample(50)]), Row(JSON, OTHER, [sample(40)]))
    begin, end = marks(TARGET)
    page = replaced(f"before\n{begin}old\n{end}after\n", written(measured), TARGET)
    assert page.startswith(f"before\n{begin}")
    assert page.endswith(f"{end}after\n")
    assert "| gateway | 50.0 (50.0-50.0) | 1.25 |" in page
    assert "old" not in page
    assert replaced(PAGE.read_text(encoding="utf-8"), "new", TARGET).count("new") >= 1


def test_a_plot_has_a_bar_for_every_server_measured() -> None:
    """Valid XML whose longest bar ends within the picture."""
    measured = record(Row(JSON, MAIN, [sample(50)]), Row(JSON, OTHER, [sample(40)]), Row(MANY, OTHER))
    root = ElementTree.fromstring(cost_plot(measured, PLOTTED))
    bars = root.findall("{http://www.w3.org/2000/svg}rect")
    width = float(root.attrib["viewBox"].split()[2])
    assert len(bars) == 2
    assert all(float(bar.attrib["x"]) + float(bar.attrib["width"]) < width for bar in bars)
