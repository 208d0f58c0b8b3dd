"""Every metric of the gateway, on a registry of its own. Labels come from closed sets; docs/metrics.md lists them."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest

from gateway import __version__
from gateway.body.budget import BodyBudget
from gateway.fleet.fleet import Fleet, ModelState
from gateway.fleet.health import WorkerState
from gateway.telemetry.logs import EventLog
from gateway.telemetry.prometheus_text import Family, counter, gauge, histogram

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
BOUNDS: Final = (*map(str, SECONDS), "+Inf")

# Told from the first request on: of a series that begins with its first failure Prometheus sees no growth.
UNSEEN: Final = {
    (200, "broken"): 0,
    (499, "client_gone"): 0,
    (500, "complete"): 0,  # a worker's own answer, passed on
    (502, "complete"): 0,
    (503, "complete"): 0,
    (504, "complete"): 0,
    (502, "refused"): 0,
    (503, "refused"): 0,
    (504, "refused"): 0,
}
Counts = Mapping[Any, float]  # by the values of the labels, a tuple


class QueueLengths(Protocol):
    """Requests that wait for a worker, by model."""

    def length(self, model: str) -> int: ...

    def waits_since(self, model: str) -> float | None: ...


class Histogram:
    """How often values fell into each of the buckets of SECONDS. A fifth of the cost of the library's histogram."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """Prometheus' own form: up to each bound, all that is below it too."""
        return list(zip(BOUNDS, accumulate(self.counts), strict=True))


@dataclass(slots=True)
class Traffic:
    """Of one model and route."""

    endings: Counter[tuple[int, str]] = field(default_factory=lambda: Counter(UNSEEN))  # by status and ending
    duration: Histogram = field(default_factory=Histogram)
    first_byte: Histogram = field(default_factory=Histogram)
    between_chunks: Histogram = field(default_factory=Histogram)
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Metrics:
    """What the data path counts. Plain numbers: a request costs look-ups only, and the rest is done when scraped."""

    def __init__(self, fleet: Fleet, queues: QueueLengths, log: EventLog, bodies: BodyBudget) -> None:
        self.registry = CollectorRegistry()
        self._traffic: dict[tuple[str, str], Traffic] = {}
        self._errors = Counter({(model, "model_loading"): 0 for model in fleet.catalog.names})
        self._retries = 0
        self._loop_lag = Histogram()
        self._fleet = fleet
        self._fleet_metrics = FleetMetrics(fleet)
        self._queues = queues
        self._log = log
        self._bodies = bodies
        build = Gauge(
            "gateway_build_info", "1, with the gateway's version.", ["version"], registry=self.registry
        )
        build.labels(__version__).set(1)
        Gauge("gateway_processes", "Processes that answer.", registry=self.registry).set(1)
        ProcessCollector(namespace="gateway", registry=self.registry)

    def count(
        self, model: str, route: str, status: int, ending: str, seconds: float, first_byte: float | None
    ) -> Traffic:
        """A request has ended. seconds: from its head to its end; first_byte: to the answer's."""
        traffic = self._traffic.get((model, route))
        if traffic is None:
            traffic = self._traffic[model, route] = Traffic()
        traffic.endings[status, ending] += 1
        traffic.duration.add(seconds)
        if first_byte is not None:
            traffic.first_byte.add(first_byte)
        return traffic

    def count_error(self, model: str, code: str) -> None:
        self._errors[model, code] += 1

    def count_retry(self) -> None:
        self._retries += 1

    def count_lag(self, seconds: float) -> None:
        """How late the event loop came to something that was due."""
        self._loop_lag.add(seconds)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        families = (*self._fleet_metrics.collect(), *self.collect())
        return generate_latest(self.registry) + "".join([family.text() for family in families]).encode()

    def collect(self) -> Iterator[Family]:
        yield self._requests()
        yield self._times("duration", "gateway_request_duration_seconds", "from a request's head to its end")
        yield self._times(
            "first_byte",
            "gateway_time_to_first_byte_seconds",
            "from a request's head to the answer's first byte",
        )
        yield self._times(
            "between_chunks", "gateway_time_between_chunks_seconds", "between chunks, a stream's mean"
        )
        yield self._tokens("prompt_tokens")
        yield self._tokens("completion_tokens")
        yield counters(
            "gateway_errors", "Errors that the gateway itself answered with.", ["model", "code"], self._errors
        )
        yield counters("gateway_retries", "Requests sent a second time, before any byte of an answer.", [],
                       {(): self._retries})  # fmt: skip
        yield counters(
            "gateway_log_lines_dropped", "Log lines that could not be written.", [], {(): self._log.dropped}
        )
        yield self._queued()
        yield self._queue_age()
        yield self._lag()
        yield single("gateway_bodies_bytes", "Bytes of request bodies that are held.", self._bodies.used)
        yield single(
            "gateway_bodies_limit_bytes", "Bytes of request bodies that may be held.", self._bodies.most
        )

    def _requests(self) -> Family:
        found = {
            (model, route, str(status), ending): count
            for (model, route), traffic in self._traffic.items()
            for (status, ending), count in traffic.endings.items()
        }
        names = ["model", "route", "status", "ending"]
        return counters("gateway_requests", "Requests by model, route, HTTP status and ending.", names, found)

    def _times(self, which: str, name: str, what: str) -> Family:
        family = histogram(name, f"Seconds {what}.", ["model", "route"])
        for labels, traffic in self._traffic.items():
            spread: Histogram = getattr(traffic, which)
            family.add_histogram(labels, spread.buckets(), spread.total)
        return family

    def _tokens(self, which: str) -> Family:
        found = {labels: getattr(traffic, which) for labels, traffic in self._traffic.items()}
        said = f"{which.replace('_', ' ').capitalize()} that answers told."
        return counters(f"gateway_{which}", said, ["model", "route"], found)

    def _queued(self) -> Family:
        family = gauge("gateway_queue_length", "Requests that wait for a worker.", ["model"])
        for model in self._fleet.catalog.names:
            family.add([model], self._queues.length(model))
        return family

    def _queue_age(self) -> Family:
        what = "Seconds that the first request in line has waited for a worker."
        family, now = gauge("gateway_queue_age_seconds", what, ["model"]), time.monotonic()
        for model in self._fleet.catalog.names:
            since = self._queues.waits_since(model)
            family.add([model], 0.0 if since is None else max(0.0, now - since))
        return family

    def _lag(self) -> Family:
        family = histogram("gateway_loop_lag_seconds", "Seconds by which the event loop was late.")
        family.add_histogram([], self._loop_lag.buckets(), self._loop_lag.total)
        return family


def single(name: str, what: str, value: float) -> Family:
    """A gauge without labels."""
    family = gauge(name, what)
    family.add([], value)
    return family


def counters(name: str, what: str, labels: list[str], found: Counts) -> Family:
    family = counter(name, what, labels)
    for values, count in found.items():
        family.add(values, count)
    return family


class FleetMetrics:
    """The fleet's state, read when scraped, so that a worker that left leaves no series behind."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Family]:
        yield self._models()
        yield self._workers()
        yield self._in_flight()
        yield self._transitions()
        yield self._ejections()
        yield self._failures()

    def _models(self) -> Family:
        family = gauge(
            "gateway_model_state",
            "1 for the state a model is in, 0 for the others.",
            ["model", "state"],
        )
        for model in self._fleet.catalog.names:
            current = self._fleet.model_state(model)
            for state in ModelState:
                family.add([model, state.name.lower()], float(state is current))
        return family

    def _workers(self) -> Family:
        family = gauge(
            "gateway_worker_state",
            "1 for the state a worker is in, 0 for the others.",
            ["slug", "worker", "state"],
        )
        for worker in self._fleet.workers():
            for state in WorkerState:
                family.add([worker.slug, worker.address, state.value], float(state is worker.state))
        return family

    def _in_flight(self) -> Family:
        family = gauge("gateway_requests_in_flight", "Requests now on a worker.", ["slug", "worker"])
        for worker in self._fleet.workers():
            family.add([worker.slug, worker.address], worker.in_flight)
        return family

    def _transitions(self) -> Family:
        family = counter("gateway_worker_transitions", "Changes of a worker's state.", ["slug", "from", "to"])
        for (slug, before, after), count in self._fleet.transitions.items():
            family.add([slug, before.value, after.value], count)
        return family

    def _ejections(self) -> Family:
        family = counter("gateway_worker_ejections", "Ejections of workers for failed requests.", ["slug"])
        for slug, count in self._fleet.ejections.items():
            family.add([slug], count)
        return family

    def _failures(self) -> Family:
        family = counter(
            "gateway_worker_failures",
            "Failed requests that count against a worker.",
            ["slug", "failure"],
        )
        for (slug, failure), count in self._fleet.failures.items():
            family.add([slug, failure.value], count)
        return family
