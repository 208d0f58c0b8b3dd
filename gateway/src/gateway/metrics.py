"""Every metric of the gateway, on a registry of its own. Labels come from closed sets; docs/metrics.md lists them."""

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.fleet import Fleet, ModelState
from gateway.health import WorkerState

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """What the data path counts. Children are kept: a request costs look-ups only."""

    def __init__(self, fleet: Fleet) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "gateway_requests", "Requests by model, route, HTTP status and ending.",
            ["model", "route", "status", "ending"], registry=self.registry,
        )  # fmt: skip
        self._duration = Histogram(
            "gateway_request_duration_seconds", "Seconds from a request's head to its last byte or its end.",
            ["model", "route"], buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self._first_byte = Histogram(
            "gateway_time_to_first_byte_seconds", "Seconds from a request's head to the answer's first byte.",
            ["model", "route"], buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self._errors = Counter(
            "gateway_errors", "Errors that the gateway itself answered with, by code.",
            ["model", "code"], registry=self.registry,
        )  # fmt: skip
        self.retries = Counter(
            "gateway_retries",
            "Requests sent a second time, before any byte of an answer.",
            registry=self.registry,
        )
        build = Gauge(
            "gateway_build_info", "1, with the gateway's version.", ["version"], registry=self.registry
        )
        build.labels(__version__).set(1)
        self.registry.register(FleetCollector(fleet))
        # labels() costs more than inc(), so children are kept by one key; labels are closed sets, so that they are few
        self._request_counters: dict[tuple[str, str, int, str], Counter] = {}
        self._timers: dict[tuple[str, str], tuple[Histogram, Histogram]] = {}

    def count_request(self, model: str, route: str, status: int, ending: str, seconds: float) -> None:
        key = (model, route, status, ending)
        counter = self._request_counters.get(key)
        if counter is None:
            counter = self._request_counters[key] = self._requests.labels(model, route, str(status), ending)
        counter.inc()
        self._timers_of(model, route)[0].observe(seconds)

    def count_first_byte(self, model: str, route: str, seconds: float) -> None:
        self._timers_of(model, route)[1].observe(seconds)

    def _timers_of(self, model: str, route: str) -> tuple[Histogram, Histogram]:
        """Duration and time to first byte."""
        timers = self._timers.get((model, route))
        if timers is None:
            timers = self._duration.labels(model, route), self._first_byte.labels(model, route)
            self._timers[model, route] = timers
        return timers

    def count_error(self, model: str, code: str) -> None:
        self._errors.labels(model, code).inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class FleetCollector(Collector):
    """The fleet's state, read when scraped, so that a worker that left leaves no series behind."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        yield self._models()
        yield self._workers()
        yield self._in_flight()
        yield self._transitions()
        yield self._ejections()
        yield self._failures()

    def _models(self) -> Metric:
        family = GaugeMetricFamily(
            "gateway_model_state",
            "1 for the state a model is in, 0 for the others.",
            labels=["model", "state"],
        )
        for model in self._fleet.catalog.names:
            current = self._fleet.model_state(model)
            for state in ModelState:
                family.add_metric([model, state.name.lower()], float(state is current))
        return family

    def _workers(self) -> Metric:
        family = GaugeMetricFamily(
            "gateway_worker_state",
            "1 for the state a worker is in, 0 for the others.",
            labels=["slug", "worker", "state"],
        )
        for worker in self._fleet.workers():
            for state in WorkerState:
                family.add_metric([worker.slug, worker.address, state.value], float(state is worker.state))
        return family

    def _in_flight(self) -> Metric:
        family = GaugeMetricFamily(
            "gateway_requests_in_flight", "Requests now on a worker.", labels=["slug", "worker"]
        )
        for worker in self._fleet.workers():
            family.add_metric([worker.slug, worker.address], worker.in_flight)
        return family

    def _transitions(self) -> Metric:
        family = CounterMetricFamily(
            "gateway_worker_transitions", "Changes of a worker's state.", labels=["slug", "from", "to"]
        )
        for (slug, before, after), count in self._fleet.transitions.items():
            family.add_metric([slug, before.value, after.value], count)
        return family

    def _ejections(self) -> Metric:
        family = CounterMetricFamily(
            "gateway_worker_ejections", "Ejections of workers for failed requests.", labels=["slug"]
        )
        for slug, count in self._fleet.ejections.items():
            family.add_metric([slug], count)
        return family

    def _failures(self) -> Metric:
        family = CounterMetricFamily(
            "gateway_worker_failures",
            "Failed requests that count against a worker.",
            labels=["slug", "failure"],
        )
        for (slug, failure), count in self._fleet.failures.items():
            family.add_metric([slug, failure.value], count)
        return family
