"""The benchmark's arithmetic: a wrong quantile or median would be a wrong claim."""

import pytest

from bench.answers import DONE, chat_request, completion, events, stream_body
from bench.figures import Figure, quantile, table
from bench.gateway import Sample, all_scenarios, missed_bars
from bench.servers import Server


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


def test_the_loads_are_of_the_sizes_that_peers_were_measured_with() -> None:
    """A 1.3 KB chat body, a 560-byte answer, a stream of 100 chunks and [DONE]."""
    assert 1250 <= len(chat_request("bench-model", stream=False)) <= 1350
    assert 540 <= len(completion("bench-model")) <= 580
    assert stream_body("m", 100) == b"".join(events("m", 100)) + DONE
    assert len(events("m", 100)) == 100


@pytest.mark.parametrize(("bars", "sentences"), [([5.0, 5.0], 0), ([4.9, None], 1), ([4.9, 4.9], 2)])
def test_a_missed_bar_is_said(bars: list[float | None], sentences: int) -> None:
    """A median above its bar is one sentence; at the bar, or without one, there is none."""
    scenarios, server = all_scenarios(1), Server("gateway", 0, 0, None)
    sample = Sample(5.0, 1, 1, 1, 1, 1, 1)
    samples = {(scenario.name, "gateway"): [sample] for scenario in scenarios}
    assert len(missed_bars(samples, scenarios, server, bars)) == sentences
