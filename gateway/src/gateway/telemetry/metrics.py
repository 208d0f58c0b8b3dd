"""Every metric of the gateway process. Labels come from closed sets; docs/metrics.md lists the metrics."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest

from gateway import __version__
from gateway.body.budget import BodyBudget
from gateway.config.api_keys import Priority
from gateway.fleet.fleet import Fleet, ModelState
from gateway.fleet.health import WorkerState
from gateway.limits.limiter import Limiter
from gateway.limits.shared import SharedLimits
from gateway.telemetry.audit import AuditTrail
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


class QueueLengths(Protocol):
    """The queues of requests that wait for a worker (`proxy.queue.Queues`), as the metrics read them at a scrape."""

    def length(self, model: str, priority: Priority) -> int:
        """Return how many requests of a class wait for a worker of `model`."""

    def waits_since(self, model: str, priority: Priority) -> float | None:
        """Return since when the first of them waits, in seconds of a monotonic clock; None if none does."""


class Histogram:
    """Counts values per bucket of SECONDS. It costs a fifth of the library's histogram."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one value in the first bucket whose bound it does not exceed."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """Return the buckets as Prometheus has them: each bound with the number of values up to it."""
        return list(zip(BOUNDS, accumulate(self.counts), strict=True))


@dataclass(slots=True)
class Traffic:
    """The counts of one model and route."""

    endings: Counter[tuple[int, str]] = field(default_factory=lambda: Counter(UNSEEN))  # by status and ending
    duration: Histogram = field(default_factory=Histogram)
    first_byte: Histogram = field(default_factory=Histogram)
    between_chunks: Histogram = field(default_factory=Histogram)
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True)
class Use:
    """What the requests of one key came to, for one model."""

    requests: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Metrics:
    """What the data path counts: plain numbers, so that a request costs a few additions. A scrape makes them text."""

    def __init__(
        self, fleet: Fleet, queues: QueueLengths, log: EventLog, bodies: BodyBudget,
        audit: AuditTrail | None = None, limiter: Limiter | None = None,
        shared_limits: SharedLimits | None = None,
    ) -> None:  # fmt: skip
        self.registry = CollectorRegistry()
        self._traffic: dict[tuple[str, str], Traffic] = {}
        self._uses: dict[tuple[str, str], Use] = {}
        self._waits: dict[tuple[str, str], Histogram] = {}  # by model and class
        self._errors = Counter({(model, "model_loading"): 0 for model in fleet.catalog.names})  # see UNSEEN
        self._retries = 0
        self._loop_lag = Histogram()
        self._fleet = fleet
        self._queues = queues
        self._log = log
        self._bodies = bodies
        self._audit = audit
        self._limiter = limiter
        self._shared_limits = shared_limits
        build = Gauge(
            "gateway_build_info", "1, with the gateway's version.", ["version"], registry=self.registry
        )
        build.labels(__version__).set(1)
        Gauge("gateway_processes", "Processes that answer.", registry=self.registry).set(1)  # `merging` adds
        ProcessCollector(namespace="gateway", registry=self.registry)

    def count(
        self, model: str, route: str, status: int, ending: str, seconds: float, first_byte: float | None
    ) -> Traffic:
        """Count a request that has ended. seconds: from its head; first_byte: to the answer's first byte, or None.
        Return the counts of its model and route, to which `Recorder` adds what it knows of tokens and chunks."""
        traffic = self._traffic.get((model, route))
        if traffic is None:
            traffic = self._traffic[model, route] = Traffic()
        traffic.endings[status, ending] += 1
        traffic.duration.add(seconds)
        if first_byte is not None:
            traffic.first_byte.add(first_byte)
        return traffic

    def count_key(
        self, label: str, model: str, sent: bool, prompt: int, cached: int, completion: int
    ) -> None:
        """Count a request of a key that has ended, and its tokens. label: the key's, of a bounded number (KeyRing);
        sent: to a worker."""
        use = self._uses.get((label, model))
        if use is None:
            use = self._uses[label, model] = Use()
        use.requests += 1
        if not sent:
            use.refused += 1
        use.prompt_tokens += prompt
        use.cached_tokens += cached
        use.completion_tokens += completion

    def count_wait(self, model: str, priority: Priority, seconds: float) -> None:
        """Count how long a request that has ended was in the queue; of those that were not, none is counted."""
        self._waits.setdefault((model, priority.label), Histogram()).add(seconds)

    def count_error(self, model: str, code: str) -> None:
        """Count an error that the gateway itself answered with, by its `GatewayError.code`."""
        self._errors[model, code] += 1

    def count_retry(self) -> None:
        """Count a request that was sent more than once, when it has ended."""
        self._retries += 1

    def count_lag(self, seconds: float) -> None:
        """Note how many seconds late the event loop was for the timer of `Listener.watch`: it was busy for so long."""
        self._loop_lag.add(seconds)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format, at a scrape of the ops port."""
        families = (*fleet_families(self._fleet), *self._families())
        return generate_latest(self.registry) + "".join([family.text() for family in families]).encode()

    def _families(self) -> Iterator[Family]:
        """Yield the metrics of requests, queues, bodies, log and event loop; `fleet_families` yields the others."""
        models, queues, bodies = self._fleet.catalog.names, self._queues, self._bodies
        yield self._requests()
        yield self._times("duration", "gateway_request_duration_seconds", "from a request's head to its end")
        what = "from a request's head to the answer's first byte"
        yield self._times("first_byte", "gateway_time_to_first_byte_seconds", what)
        what = "between chunks, a stream's mean"
        yield self._times("between_chunks", "gateway_time_between_chunks_seconds", what)
        yield self._tokens("prompt_tokens")
        yield self._tokens("completion_tokens")
        yield self._use("requests", "Requests by API key.")
        yield self._use("refused", "Requests by API key that no worker got.")
        yield self._use("prompt_tokens", "Prompt tokens that answers told, by API key.")
        yield self._use("cached_tokens", "Prompt tokens from a cache that answers told, by API key.")
        yield self._use("completion_tokens", "Completion tokens that answers told, by API key.")
        yield from limit_families(self._limiter)
        what, shared = (
            "1 if the Redis with the limits of several gateways answers, else 0.",
            self._shared_limits,
        )
        samples = [] if shared is None else [((), float(shared.is_up))]
        yield gauge("gateway_limits_store_up", what, samples=samples)
        what = "Errors that the gateway itself answered with."
        yield counter("gateway_errors", what, ["model", "code"], self._errors.items())
        what = "Requests sent a second time, before any byte of an answer."
        yield counter("gateway_retries", what, samples=[((), self._retries)])
        what = "Log lines that could not be written."
        yield counter("gateway_log_lines_dropped", what, samples=[((), self._log.dropped)])
        what = "Lines of the audit log that could not be written."
        dropped = 0 if self._audit is None else self._audit.dropped
        yield counter("gateway_audit_lines_dropped", what, samples=[((), dropped)])
        each = [(model, priority) for model in models for priority in Priority]
        what = "Requests that wait for a worker."
        lengths = [((model, one.label), queues.length(model, one)) for model, one in each]
        yield gauge("gateway_queue_length", what, ["model", "priority"], lengths)
        what = "Seconds for which the first of these requests has waited."
        ages = [((model, one.label), self._queue_age(model, one)) for model, one in each]
        yield gauge("gateway_queue_age_seconds", what, ["model", "priority"], ages)
        yield self._queue_wait()
        lag = histogram("gateway_loop_lag_seconds", "Seconds by which the event loop was late.")
        lag.add_histogram([], self._loop_lag.buckets(), self._loop_lag.total)
        yield lag
        what = "Bytes of request bodies that are held."
        yield gauge("gateway_bodies_bytes", what, samples=[((), bodies.used)])
        what = "Bytes of request bodies that may be held."
        yield gauge("gateway_bodies_limit_bytes", what, samples=[((), bodies.most)])

    def _requests(self) -> Family:
        """Return the counter of ended requests, by model, route, status and ending."""
        found = [
            ((model, route, str(status), ending), count)
            for (model, route), traffic in self._traffic.items()
            for (status, ending), count in traffic.endings.items()
        ]
        labels = ["model", "route", "status", "ending"]
        return counter("gateway_requests", "Requests by model, route, HTTP status and ending.", labels, found)

    def _times(self, which: str, name: str, what: str) -> Family:
        """Return the family `name`, made of one histogram of each `Traffic`. which: that field's name."""
        family = histogram(name, f"Seconds {what}.", ["model", "route"])
        for labels, traffic in self._traffic.items():
            times: Histogram = getattr(traffic, which)
            family.add_histogram(labels, times.buckets(), times.total)
        return family

    def _tokens(self, which: str) -> Family:
        """Return a counter of tokens. which: the field of each `Traffic`, `prompt_tokens` or `completion_tokens`."""
        found = [(labels, getattr(traffic, which)) for labels, traffic in self._traffic.items()]
        what = f"{which.replace('_', ' ').capitalize()} that answers told."
        return counter(f"gateway_{which}", what, ["model", "route"], found)

    def _use(self, which: str, what: str) -> Family:
        """Return a counter by key and model; without a key file it has no samples. which: the field of each `Use`."""
        found = [(labels, getattr(use, which)) for labels, use in self._uses.items()]
        return counter(f"gateway_key_{which}", what, ["key", "model"], found)

    def _queue_wait(self) -> Family:
        """Return the histogram of waits in the queue."""
        family = histogram("gateway_queue_wait_seconds", "Seconds in the queue.", ["model", "priority"])
        for labels, times in self._waits.items():
            family.add_histogram(labels, times.buckets(), times.total)
        return family

    def _queue_age(self, model: str, priority: Priority) -> float:
        """Return how many seconds the first in a queue has waited, or 0. `max`: `since` is of another clock, the
        loop's."""
        since = self._queues.waits_since(model, priority)
        return 0.0 if since is None else max(0.0, time.monotonic() - since)


def limit_families(limiter: Limiter | None) -> Iterator[Family]:
    """Yield the metrics of keys' limits. Use and limit are the same in all processes, which share them. None: without
    samples."""
    labels = ["key", "limit"]
    what = "Requests that a limit of their API key refused."
    refusals = {} if limiter is None else limiter.refusals
    yield counter("gateway_key_limit_refusals", what, labels, refusals.items())
    uses = [] if limiter is None else limiter.uses()
    what = "What an API key has used of a limit, in all processes."
    yield gauge("gateway_key_limit_used", what, labels, [((use.label, use.limit), use.used) for use in uses])
    what = "Limits of API keys."
    yield gauge("gateway_key_limit", what, labels, [((use.label, use.limit), use.most) for use in uses])


def fleet_families(fleet: Fleet) -> Iterator[Family]:
    """Yield the fleet's metrics, read when scraped: a worker that left leaves no series behind."""
    workers = fleet.workers()
    models = [(model, fleet.model_state(model)) for model in fleet.catalog.names]
    what = "1 for the state a model is in, 0 for the others."
    found = [((name, one.name.lower()), float(one is state)) for name, state in models for one in ModelState]
    yield gauge("gateway_model_state", what, ["model", "state"], found)
    what = "1 for the state a worker is in, 0 for the others."
    each = [((w.slug, w.address, one.value), float(one is w.state)) for w in workers for one in WorkerState]
    yield gauge("gateway_worker_state", what, ["slug", "worker", "state"], each)
    in_flight = [((worker.slug, worker.address), worker.in_flight) for worker in workers]
    yield gauge("gateway_requests_in_flight", "Requests now on a worker.", ["slug", "worker"], in_flight)
    what, transitions = "Changes of a worker's state.", fleet.transitions.items()
    changes = [((slug, before.value, after.value), n) for (slug, before, after), n in transitions]
    yield counter("gateway_worker_transitions", what, ["slug", "from", "to"], changes)
    what = "Ejections of workers for failed requests."
    ejections = [((slug,), count) for slug, count in fleet.ejections.items()]
    yield counter("gateway_worker_ejections", what, ["slug"], ejections)
    what = "Failed requests that count against a worker."
    failures = [((slug, failure.value), count) for (slug, failure), count in fleet.failures.items()]
    yield counter("gateway_worker_failures", what, ["slug", "failure"], failures)
