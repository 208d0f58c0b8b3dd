"""The benchmark's arithmetic: a wrong quantile or median would be a wrong claim."""

import pytest

from bench.figures import Figure, quantile, table
from bench.load import Tally
from bench.measure import to_sample


@pytest.mark.parametrize(("share", "expected"), [(0, 1), (0.5, 2), (0.51, 3), (0.75, 3), (0.99, 4), (1, 4)])
def test_a_quantile_is_an_observed_value(share: float, expected: float) -> None:
    """The smallest value that at least that share does not exceed, whatever the order."""
    assert quantile([4, 1, 3, 2], share) == expected


def test_a_figure_is_a_median_with_its_spread() -> None:
    """One wild round moves the spread, not the figure."""
    assert Figure.of([3, 1, 100]).text(1) == "3.0 (1.0-100.0)"


def test_a_table_lines_up() -> None:
    """Names flush left, figures flush right."""
    assert table(["server", "us"], [["gateway", "9.5"], ["a", "10.25"]]).splitlines() == [
        "server      us",
        "-------  -----",
        "gateway    9.5",
        "a        10.25",
    ]


def test_half_an_answer_counts_half() -> None:
    """Work is what came within the window: of 4 answers of 100 bytes, 250 bytes are 2.5 answers, 25 chunks of 10."""
    tally = Tally([(5.0, 0.001, 0.010), (9.0, 1.0, 1.0)], 4, 40, 400, (4.0, 6.0), 250, 0.005)
    sample = to_sample(tally, 10, 20.0)
    assert sample.us_per_unit == pytest.approx(200)
    assert sample.units_per_s == pytest.approx(12.5)
    assert sample.units_per_cpu_s == pytest.approx(5000)
    assert (sample.ttfb_p50_ms, sample.p99_ms) == (
        1.0,
        10.0,
    )  # the answer asked for after the window is not told
    assert sample.pieces == 10


def test_where_nothing_was_asked_within_the_window_all_answers_are_told() -> None:
    """A server so slow that each connection asked once, before the window, still has a latency."""
    assert Tally([(1.0, 0.5, 2.0)], window=(4.0, 6.0)).counted() == ([0.5], [2.0])
