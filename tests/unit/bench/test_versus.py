"""The comparison of two builds: its interval is honest, and what lies on both sides of a bar is no verdict."""

import random

import pytest

from bench.versus import interval, verdict


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    """Of a thousand samples with a known median, at most one in twenty misses it, and it is not all there is."""
    source = random.Random(1)
    missed = 0
    for _ in range(1000):
        ratios = [source.lognormvariate(0, 0.2) for _ in range(24)]
        low, high = interval(ratios)
        assert min(ratios) < low < high < max(ratios)
        missed += not low <= 1 <= high
    assert missed <= 50


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ([1.0] * 20, "holds"),
        ([1.2] * 20, "missed"),
        ([1.0, 1.2] * 10, "inconclusive"),
        ([1.0, 1.2], "inconclusive"),  # too few to say anything
        ([1.0] * 5, "inconclusive"),
        ([1.2] * 5, "inconclusive"),
        ([1.2] * 6, "missed"),
    ],
)
def test_verdicts(ratios: list[float], said: str) -> None:
    assert verdict(ratios, 1.1) == said
