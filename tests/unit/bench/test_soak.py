"""Hours of load, judged: what grows or drifts is missed, what only varies is not."""

from dataclasses import replace

from bench.soak import Minute, drift, judge, slope

FLAT = Minute(50, 20, 1.01, 0.99, 1.02, 45, 25, 8)


def missed(minutes: list[Minute]) -> list[str]:
    return [verdict.name for verdict in judge(minutes) if verdict.is_missed]


def test_what_stays_as_it_is_holds() -> None:
    """The first ten minutes count for nothing."""
    assert missed([FLAT] * 120) == []
    assert missed([replace(FLAT, rss_mib=20, files=90, request_cost=9)] * 10 + [FLAT] * 110) == []


def test_memory_that_grows_is_missed() -> None:
    """More than a mebibyte an hour, by the slope of all minutes."""
    assert missed([replace(FLAT, rss_mib=50 + at / 30) for at in range(120)]) == [
        "MiB an hour, growth of memory"
    ]
    assert missed([replace(FLAT, rss_mib=50 + at / 90) for at in range(120)]) == []


def test_files_that_stay_open_are_missed() -> None:
    assert missed([replace(FLAT, files=20 + at) for at in range(120)]) == [
        "open files more at the end than at the start"
    ]


def test_costs_that_drift_are_missed() -> None:
    """The last quarter's median against the first's."""
    assert drift("x", [1.0] * 30 + [1.06] * 10).is_missed
    assert not drift("x", [1.0] * 30 + [1.04] * 10).is_missed
    late = [FLAT] * 90 + [replace(FLAT, request_p99=1.1)] * 30
    text = "p99 of a request: last quarter against the first (minutes 1.02-1.10 of a young gateway's)"
    assert missed(late) == [text]


def test_a_slope_is_by_step() -> None:
    assert slope([1.0, 3.0, 5.0]) == 2.0
