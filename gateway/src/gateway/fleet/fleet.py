"""The fleet: the last known state of every slug's workers and weights job, and the pools made of it. No I/O. Probes and
requests report here. Each report may change a worker's health; if its state is then another, the pools of its models
are made anew and the observers are called with the transition."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

from gateway.api.errors import GatewayError, ModelLoading, ModelNotFound, NoWorkerAvailable
from gateway.config.api_keys import ANYONE, ApiKey
from gateway.config.catalog import Card, Catalog
from gateway.fleet.engine_metrics import EngineMetrics
from gateway.fleet.health import (
    TAKES_REQUESTS,
    Failure,
    Health,
    Rules,
    WorkerState,
    names_differ,
    probe_failed,
    probe_passed,
    request_completed,
    request_failed,
    request_succeeded,
)
from gateway.fleet.workers import Worker

Address = tuple[str, int]
TRUSTED = frozenset({WorkerState.READY, WorkerState.SUSPECT})  # with one of them left, another can be spared


class ModelState(IntEnum):
    """What clients are told of a model. If several slugs serve one name, the best (highest) of their states counts."""

    ABSENT = 0  # no worker and no weights job
    DOWN = 1  # workers, of which none takes requests or starts
    LOADING = 2  # the weights job runs, or a worker starts
    READY = 3  # a worker takes requests


@dataclass(slots=True)
class SlugStatus:
    """The last look at one slug. `weights` is the weights job's progress report; None if no job runs."""

    workers: dict[Address, Worker] = field(default_factory=dict)
    weights: Mapping[str, object] | None = None

    @property
    def state(self) -> ModelState:
        """Return the best state of the workers; without any worker, LOADING if a weights job runs, else ABSENT."""
        states = {worker.state for worker in self.workers.values()}
        if states & TAKES_REQUESTS:
            return ModelState.READY
        if WorkerState.STARTING in states:
            return ModelState.LOADING
        if states:
            return ModelState.DOWN
        return ModelState.LOADING if self.weights is not None else ModelState.ABSENT


@dataclass(frozen=True, slots=True)
class Transition:
    """The change of one worker's state, with the reason."""

    worker: Worker
    before: WorkerState
    after: WorkerState
    reason: str


Observer = Callable[[Transition], None]
Clock = Callable[[], float]


class Fleet:
    """Owns all workers of the catalog's slugs. `clock` returns seconds and never goes back."""

    def __init__(self, catalog: Catalog, rules: Rules, clock: Clock) -> None:
        self.catalog = catalog
        self.slugs: Mapping[str, SlugStatus] = {card.slug: SlugStatus() for card in catalog.cards}
        self.transitions: Counter[tuple[str, WorkerState, WorkerState]] = Counter()
        self.ejections: Counter[str] = Counter({card.slug: 0 for card in catalog.cards})
        self.failures: Counter[tuple[str, Failure]] = Counter(
            {(card.slug, failure): 0 for card in catalog.cards for failure in Failure}
        )
        self._rules = {card.slug: _rules_of(card, rules) for card in catalog.cards}
        self._pools: dict[str, tuple[Worker, ...]] = {}
        self._observers: list[Observer] = []
        self._clock = clock

    @classmethod
    def of(cls, catalog: Catalog, rules: Rules | None = None, clock: Clock = time.monotonic) -> "Fleet":
        """Return a fleet without workers yet; discovery brings them. Tests leave out the rules or set a clock."""
        return cls(catalog, rules or Rules(), clock)

    def observe(self, observer: Observer) -> None:
        """Register `observer`, to log or to serve queues: called at each transition, in the call that caused it."""
        self._observers.append(observer)

    def workers(self) -> list[Worker]:
        """Return all workers of all slugs, in any state: to probe and to report them, or to search for a response."""
        return [worker for status in self.slugs.values() for worker in status.workers.values()]

    def pool(self, model: str) -> tuple[Worker, ...]:
        """Return the workers that take requests for `model`; none if it is unknown or not ready. It is the same tuple
        object until a state changes, since selectors keep what they computed for it."""
        return self._pools.get(model, ())

    def has(self, worker: Worker) -> bool:
        """Return whether `worker` still belongs to the fleet, so that a response it stored can be asked of it."""
        return self.slugs[worker.slug].workers.get((worker.host, worker.port)) is worker

    def models_of(self, worker: Worker) -> tuple[str, ...]:
        """Return the model names that clients may use for `worker`: those whose pools it is in when it is well."""
        return self.catalog.by_slug[worker.slug].names

    def model_state(self, model: str) -> ModelState:
        """Return the best state of the slugs that serve `model`. Raises ValueError if no card has this name."""
        return max(self.slugs[card.slug].state for card in self.catalog.resolve(model))

    def serving(self, model: str) -> list[Card]:
        """Return the cards of `model` whose workers take requests, or all if none does: /v1/models describes these."""
        cards = self.catalog.resolve(model)
        ready = [card for card in cards if self.slugs[card.slug].state is ModelState.READY]
        return ready or list(cards)

    def ready_models(self) -> list[str]:
        """Return the names that can be served now, for /v1/models, /ready and the error of an unknown model."""
        return [name for name in self.catalog.names if self.model_state(name) is ModelState.READY]

    # what requests tell: `ProxyHandler` calls these

    def succeeded(self, worker: Worker) -> None:
        """Note that `worker` began a good answer: a trial is passed and its count of failures starts anew."""
        if worker.is_settled:  # as nearly always: nothing would change
            return
        now = self._clock()
        self._update(worker, request_succeeded(worker.health, self._rules[worker.slug], now), now)

    def completed(self, worker: Worker) -> None:
        """Note that `worker` finished a good answer: its count of broken answers starts anew."""
        if worker.is_settled:
            return
        now = self._clock()
        self._update(worker, request_completed(worker.health, self._rules[worker.slug], now), now)

    def failed(self, worker: Worker, failure: Failure) -> None:
        """Note that a request failed at `worker`, through no fault of client or gateway. Several in a row eject it."""
        self.failures[worker.slug, failure] += 1
        now, rules = self._clock(), self._rules[worker.slug]
        spare = self._can_spare(worker)
        self._update(worker, request_failed(worker.health, failure, rules, now, spare=spare), now)

    # what discovery and probes tell: `DiscoveryLoop` calls these

    def probe_passed(self, worker: Worker, metrics: EngineMetrics | None) -> None:
        """Note a passed probe and the load that `metrics` tells; None counts as no load, for want of a better guess."""
        now, rules = self._clock(), self._rules[worker.slug]
        worker.waiting, worker.kv_use = (metrics.waiting, metrics.kv_use) if metrics else (0.0, 0.0)
        worker.start = None  # its start is over
        self._update(worker, probe_passed(worker.health, metrics, worker.in_flight, rules, now), now)
        worker.moved = worker.health.progress.moved

    def probe_failed(self, worker: Worker, reason: str, *, certain: bool = False) -> None:
        """Note a failed probe. certain: it was refused or the worker says it is not well: suspect at once."""
        health = probe_failed(worker.health, reason, self._rules[worker.slug], certain=certain)
        self._update(worker, health, self._clock())

    def names_differ(self, worker: Worker, reason: str) -> None:
        """Note that `worker` answers but serves other names than its card says: no requests until a probe passes."""
        worker.start = None
        self._update(worker, names_differ(worker.health, reason), self._clock())

    def tick(self) -> None:
        """Apply what only time changes: ejections end, slow starts advance. Called in each round of probes."""
        now = self._clock()
        for worker in self.workers():
            self._update(worker, worker.health, now)

    def refresh(self, slug: str, addresses: Iterable[Address]) -> tuple[list[Worker], list[Worker]]:
        """Set the workers of `slug` to those at `addresses`; return (joined, left). Known ones keep their objects."""
        known, wanted = self.slugs[slug].workers, list(dict.fromkeys(addresses))
        left = [known.pop(address) for address in list(known) if address not in wanted]
        joined = [Worker(slug, *address) for address in wanted if address not in known]
        known.update({(worker.host, worker.port): worker for worker in joined})
        if left:  # those that joined are in no pool yet
            self._make_pools(slug)
        return joined, left

    def _update(self, worker: Worker, health: Health, now: float) -> None:
        """Set a worker's health and all that follows from it; report a transition if its state is another."""
        rules, before = self._rules[worker.slug], worker.state
        worker.health, worker.is_settled = health, health.is_settled
        worker.state, worker.reason = health.state(rules, now), health.reason(rules, now)
        worker.slow_start_factor = health.slow_start_factor(rules, now)
        if worker.state is not before:
            self._change(Transition(worker, before, worker.state, worker.reason))

    def _change(self, transition: Transition) -> None:
        """Count the transition and make the pools anew, then call the observers, which may use the new pools."""
        worker = transition.worker
        is_on_trial = transition.after is WorkerState.HALF_OPEN
        worker.trials, worker.on_trial = 0, self._count_trial if is_on_trial else None
        self.transitions[worker.slug, transition.before, transition.after] += 1
        self.ejections[worker.slug] += transition.after is WorkerState.EJECTED
        self._make_pools(worker.slug)
        for observer in self._observers:
            observer(transition)

    def _count_trial(self, worker: Worker, change: int) -> None:
        """Count a trial request that begins (1) or ends (-1), for its lease. On trial a worker gets one at a time.
        `max`: one that began in an earlier trial may end in this one, whose count began at 0."""
        worker.trials = max(0, worker.trials + change)
        self._make_pools(worker.slug)

    def _can_spare(self, worker: Worker) -> bool:
        """Return whether all models of `worker` have another worker in TRUSTED, so that this one may be ejected."""
        pools = (self._workers_of(name) for name in self.models_of(worker))
        return all(any(one.state in TRUSTED for one in pool if one is not worker) for pool in pools)

    def _make_pools(self, slug: str) -> None:
        """Choose the pools of the slug's models anew: a worker of it has left, or its state or trials have changed."""
        for name in self.catalog.by_slug[slug].names:
            self._pools[name] = choose_pool(self._workers_of(name))

    def _workers_of(self, model: str) -> list[Worker]:
        """Return all workers of the slugs that serve `model`, in any state; `pool` has those that take requests."""
        cards = self.catalog.resolve(model)
        return [worker for card in cards for worker in self.slugs[card.slug].workers.values()]

    # what clients are told

    def why_unavailable(self, model: str, named: str = "", key: ApiKey = ANYONE) -> GatewayError:
        """Return the error for a request whose model is unknown or has no pool. Its message says what to do. named: as
        the client has it, such as an alias; key: whose request it is. If that may use only aliases of the model, it
        learns no name or slug of the model itself."""
        cards, named = self.catalog.resolve(model), named or model
        if not cards:
            return self.not_found(named)
        state = self.model_state(model)
        if state is ModelState.ABSENT:
            command = cards[0].start_command if key.may_use(model) else "ask the operator for it"
            return ModelNotFound(f"The model {named!r} is declared but not started: {command}", "model")
        if state is ModelState.LOADING:
            progress = self._progress(model, cards)
            return ModelLoading(
                f"The model {named!r} is loading{progress}; try again after Retry-After seconds"
            )
        return NoWorkerAvailable(self._why_down(model, cards, named, key))

    def not_found(self, model: str, key: ApiKey = ANYONE) -> GatewayError:
        """Return the error for a model that does not exist, or that `key` may not use: nothing tells which."""
        return ModelNotFound(f"The model {model[:100]!r} does not exist. {self._known_models(key)}", "model")

    def _why_down(self, model: str, cards: tuple[Card, ...], named: str, key: ApiKey) -> str:
        """Return why no worker of the model answers: wrong names if a worker has them, else what a launcher reports.
        Arguments as of `why_unavailable`."""
        told = next(filter(None, map(describe_start, self._starts(model))), "")
        if not key.may_use(model):
            return f"No worker of the model {named!r} answers{told}; tell the operator"
        for worker in self._workers_of(model):
            if worker.state is WorkerState.MISNAMED:
                return f"A worker of the model {named!r} {worker.reason}"
        return (
            f"No worker of the model {named!r} answers{told}; on the node: docker compose ps {cards[0].slug}"
        )

    def _known_models(self, key: ApiKey) -> str:
        """Return which models `key` can name instead, in words: the ready ones, else the declared."""
        if ready := [name for name in self.ready_models() if key.may_use(name)]:
            return f"Ready: {', '.join(ready)}"
        if declared := [name for name in self.catalog.names if key.may_use(name)]:
            return f"Declared: {', '.join(declared)}; none is ready"
        return "GET /v1/models lists what this API key may use"  # aliases

    def _progress(self, model: str, cards: Iterable[Card]) -> str:
        """Return how far a loading model is, in words: from its weights job, else from a launcher; or ""."""
        reports = (self.slugs[card.slug].weights for card in cards)
        weights = (describe_weights(report) for report in reports if report is not None)
        return next(filter(None, [*weights, *map(describe_start, self._starts(model))]), "")

    def _starts(self, model: str) -> list[Mapping[str, object]]:
        """Return what the launchers of the model's workers last reported of their starts, for error messages."""
        return [worker.start for worker in self._workers_of(model) if worker.start]


def choose_pool(workers: Iterable[Worker]) -> tuple[Worker, ...]:
    """Return the workers of a model that take requests: the ready ones, or without any the suspect ones, and those free
    for a trial; without these, all that still answer probes, since a doubtful worker is better than none."""
    able = [worker for worker in workers if worker.state in TAKES_REQUESTS]
    is_any_ready = any(worker.state is WorkerState.READY for worker in able)
    first = WorkerState.READY if is_any_ready else WorkerState.SUSPECT
    chosen = tuple(worker for worker in able if worker.state is first or _is_free_for_trial(worker))
    return chosen or tuple(able)


def _is_free_for_trial(worker: Worker) -> bool:
    """Return whether a worker is half open and has no request on trial, so that it may get one."""
    return worker.state is WorkerState.HALF_OPEN and worker.trials == 0


def _rules_of(card: Card, rules: Rules) -> Rules:
    """Return the settings' rules with the limits on progress that the slug's card sets."""
    return replace(rules, suspect_s=card.suspect_s, down_s=card.down_s)


def describe_weights(report: Mapping[str, object]) -> str:
    """Return a weights job's progress in words, such as ` (weights 43 %, about 12 min)`; ` (weights)` if unknown."""
    done, total, eta = (report.get(key) for key in ("bytes_done", "bytes_total", "eta_s"))
    if not isinstance(done, int | float) or not isinstance(total, int | float) or total <= 0:
        return " (weights)"
    return f" (weights {100 * done / total:.0f} %{in_minutes(eta)})"


def describe_start(report: Mapping[str, object]) -> str:
    """Return a launcher's state in words, such as ` (loading 43 %, about 5 min)`, or what blocks it; or ""."""
    phase, percent, trouble = (report.get(key) for key in ("phase", "percent", "trouble"))
    if isinstance(trouble, str):
        return f" ({trouble})"
    if not isinstance(phase, str) or phase == "ready":
        return ""
    done = f" {percent} %" if isinstance(percent, int) else ""
    return f" ({phase}{done}{in_minutes(report.get('left_s'))})"


def in_minutes(seconds: object) -> str:
    """Format seconds as `, about 12 min`, at least 1; empty if a report has no such number."""
    return f", about {max(1, round(seconds / 60))} min" if isinstance(seconds, int | float) else ""
