"""Merge what several gateway processes report into one page, for the parent's ops port. Pure. Counters and histograms
are added up, and so are gauges that count processes, requests, bytes or open files; of any other gauge the highest
value is kept, or the lowest if LOWEST_GAUGES has it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

SUMMED = ("counter", "histogram")
SUMMED_GAUGES = (
    "gateway_processes",
    "gateway_requests_in_flight",
    "gateway_queue_length",
    "gateway_bodies_bytes",
    "gateway_bodies_limit_bytes",
    "gateway_process_resident_memory_bytes",
    "gateway_process_virtual_memory_bytes",
    "gateway_process_open_fds",
)
LOWEST_GAUGES = ("gateway_limits_store_up",)  # 1 where all is well
Json = dict[str, Any]
Labels = tuple[tuple[str, str], ...]


class Merged(Collector):
    """A collector for the Prometheus library: families with the merged samples of all expositions."""

    def __init__(self, expositions: Iterable[str]) -> None:
        self._families: dict[str, Metric] = {}
        self._samples: dict[str, dict[tuple[str, Labels], float]] = {}
        for text in expositions:
            for family in text_string_to_metric_families(text):
                self._add(family)

    def collect(self) -> Iterator[Metric]:
        """Yield the merged metrics; the library calls this when it writes the text."""
        for name, family in self._families.items():
            whole = Metric(name, family.documentation, family.type)
            for (sample, labels), value in self._samples[name].items():
                whole.add_sample(sample, dict(labels), value)
            yield whole

    def _add(self, family: Metric) -> None:
        """Add one process's samples of a metric to the others': summed, or the highest or lowest of them."""
        self._families.setdefault(family.name, family)
        samples = self._samples.setdefault(family.name, {})
        join = joining(family)
        for sample in family.samples:
            key = sample.name, tuple(sample.labels.items())
            before = samples.get(key)
            samples[key] = sample.value if before is None else join(before, sample.value)


def joining(family: Metric) -> Callable[[float, float], float]:
    """Return what makes one value of those of two processes."""
    if family.type in SUMMED or family.name in SUMMED_GAUGES:
        return float.__add__
    return min if family.name in LOWEST_GAUGES else max


def metrics(expositions: Sequence[str]) -> bytes:
    """Return one exposition (a page of metrics in Prometheus' text format) for those of all processes."""
    registry = CollectorRegistry()
    registry.register(Merged(expositions))
    return generate_latest(registry)


def workers(pages: Sequence[Json]) -> Json:
    """Return one /workers page: the first process's view of each worker, with all processes' requests in flight."""
    first, *others = ({slug["slug"]: slug for slug in page["slugs"]} for page in pages)
    slugs = [merged_slug(slug, [other.get(name, {}) for other in others]) for name, slug in first.items()]
    return {"slugs": slugs}


def merged_slug(slug: Json, others: Sequence[Json]) -> Json:
    """Return one slug as the first process sees it, with the other processes' requests in flight added."""
    elsewhere: Counter[str] = Counter()
    for other in others:
        for worker in other.get("workers", ()):
            elsewhere[worker["address"]] += worker["in_flight"]
    ours = slug["workers"]
    found = [{**one, "in_flight": one["in_flight"] + elsewhere[one["address"]]} for one in ours]
    return {**slug, "workers": found}
