"""Prometheus' text format as our own writer has it: what Prometheus' library reads, and what it would write."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as some
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gateway.telemetry.metrics import SECONDS, Histogram
from gateway.telemetry.prometheus_text import counter, gauge, histogram

LABELS = ["slug", "from", "to"]
values = some.lists(some.text(), min_size=3, max_size=3)


class One(Collector):
    """A single family of the library's."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Sequence[Metric]:
        return [self._family]


def library(family: Metric) -> str:
    """What the library writes."""
    registry = CollectorRegistry()
    registry.register(One(family))
    return generate_latest(registry).decode()


@given(values, some.floats(allow_nan=False, allow_infinity=False))
def test_what_is_written_is_read_again(labels: list[str], number: float) -> None:
    """Whatever the labels hold: quotes, backslashes, lines."""
    family = gauge("g", "What it is.", LABELS)
    family.add(labels, number)
    (read,) = text_string_to_metric_families(family.text())
    assert (read.name, read.type, read.documentation) == ("g", "gauge", "What it is.")
    (sample,) = read.samples
    assert (sample.labels, sample.value) == (dict(zip(LABELS, labels, strict=True)), number)


@given(values, some.integers(0, 999_999))
def test_gauges_and_counters_are_written_as_by_the_library(labels: list[str], number: int) -> None:
    for ours, theirs in (
        (gauge("n", "What.", LABELS), GaugeMetricFamily("n", "What.", labels=LABELS)),
        (counter("n", "What.", LABELS), CounterMetricFamily("n", "What.", labels=LABELS)),
    ):
        ours.add(labels, number)
        theirs.add_metric(labels, number)
        assert ours.text() == library(theirs)


@given(some.lists(some.floats(0, 1000), max_size=20), some.booleans())
def test_histograms_are_written_as_by_the_library(seconds: list[float], is_labelled: bool) -> None:
    """With labels and without."""
    labels, spread = ["model", "route"] if is_labelled else [], Histogram()
    for one in seconds:
        spread.add(one)
    ours, theirs = histogram("h", "Seconds.", labels), HistogramMetricFamily("h", "Seconds.", labels=labels)
    ours.add_histogram(labels, spread.buckets(), spread.total)
    theirs.add_metric(labels, [(bound, count) for bound, count in spread.buckets()], spread.total)
    assert ours.text() == library(theirs)
    assert len(spread.buckets()) == len(SECONDS) + 1


def test_a_metric_without_samples_is_told() -> None:
    assert counter("n", "What.").text() == library(CounterMetricFamily("n", "What.", labels=["a"]))
