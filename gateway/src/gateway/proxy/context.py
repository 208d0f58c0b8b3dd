"""The objects that all proxied requests of a process share. Made once, at the start."""

from dataclasses import dataclass, field
from random import Random

from gateway.balancing.selection import Selector, selector_for
from gateway.body.offload import Offload
from gateway.body.reader import BodyReader
from gateway.config.api_keys import ApiKey, Priority
from gateway.config.field_policy import FieldPolicy, Mode
from gateway.config.key_ring import KeyRing
from gateway.config.model_options import Models
from gateway.config.settings import Settings
from gateway.fleet.fleet import Fleet
from gateway.fleet.workers import Worker
from gateway.http.turns import Turns
from gateway.limits.estimates import Estimates
from gateway.limits.limiter import Limiter
from gateway.limits.shared import SharedLimits
from gateway.proxy.places import Places, has_place, places_of
from gateway.proxy.queue import Queues
from gateway.proxy.record import Recorder
from gateway.proxy.response_affinity import ResponseAffinity, Search
from gateway.proxy.retry_budget import RetryBudget
from gateway.telemetry.audit import AuditTrail
from gateway.telemetry.logs import EventLog
from gateway.upstream.pool import Upstream


@dataclass(slots=True)
class Context:
    """What all proxied requests share. random: for choices, and for ids, which must be unique but not secret."""

    settings: Settings
    fleet: Fleet
    models: Models
    keys: KeyRing
    upstream: Upstream
    queues: Queues
    log: EventLog
    recorder: Recorder
    limiter: Limiter
    audit: AuditTrail | None = None
    shared_limits: SharedLimits | None = None  # of several gateways
    random: Random = field(default_factory=Random)
    affinity: ResponseAffinity = field(default_factory=ResponseAffinity)
    estimates: Estimates = field(default_factory=Estimates)
    offload: Offload = field(init=False)
    turns: Turns = field(init=False)  # in which large bodies are read
    reader: BodyReader = field(init=False)
    selectors: dict[str, Selector[Worker]] = field(init=False)
    retry_budgets: dict[str, RetryBudget] = field(init=False)
    _places: dict[str, Places | None] = field(init=False, default_factory=dict)  # by model
    _classes: frozenset[Priority] | None = field(init=False, default=None)  # by which `_places` was made

    def __post_init__(self) -> None:
        self.offload = Offload(self.upstream.loop)
        self.turns = Turns(self.upstream.loop)
        policy = FieldPolicy(Mode(self.settings.field_policy), self.settings.allowed_fields.split())
        sparing = self.fleet.catalog.counting_anew
        self.reader = BodyReader(self.models.aliases, self.settings.max_text_bytes, policy, sparing)
        options = self.models.options.items()
        self.selectors = {model: selector_for(chosen, self.random) for model, chosen in options}
        self.retry_budgets = {model: RetryBudget() for model in self.models.options}

    def free_workers(self, model: str, priority: Priority) -> tuple[Worker, ...]:
        """Return the workers of `model` with room for a request of a class by the options `in_flight_per_worker` and
        `reserved`; without the former, all of its pool."""
        pool, places = self.fleet.pool(model), self._places_of(model)
        return pool if places is None else tuple([one for one in pool if has_place(one, places, priority)])

    def _places_of(self, model: str) -> Places | None:
        """Return the places of the model's workers: made anew when the key file may have keys of other classes."""
        if self._classes is not self.keys.classes:
            self._classes = self.keys.classes
            options = self.models.options.items()
            self._places = {name: places_of(chosen, self._classes) for name, chosen in options}
        return self._places[model]

    def search(self, response_id: bytes, model: str | None, key: ApiKey) -> Search:
        """Return a search for a stored response: at the worker that made it if that is known and has not left, else at
        the pool of `model`; if `model` is None, since the request names none, at all workers that take requests.
        Workers of models that `key` may not use are not asked, as if they were not there."""
        holder, made_by = self.affinity.holder_of(response_id)
        if made_by and not self._may_use(made_by, key):  # though it may use another name of the worker
            return Search(response_id, ())
        if holder is not None and self.fleet.has(holder) and self._may_ask(holder, key):
            return Search(response_id, (holder,))
        if model is not None:
            return Search(response_id, self.fleet.pool(model))
        return Search(response_id, [one for one in self.fleet.workers() if self._may_ask(one, key)])

    def model_for(self, worker: Worker, response_id: bytes, key: ApiKey) -> str:
        """Return the model by which a stored response is asked of a worker: the one that made it, if that is known,
        else the first of the worker's that `key` may use."""
        _, made_by = self.affinity.holder_of(response_id)
        names = self.fleet.models_of(worker)
        return (
            made_by if made_by in names else next((one for one in names if self._may_use(one, key)), names[0])
        )

    def _may_ask(self, worker: Worker, key: ApiKey) -> bool:
        """Return whether `key` may use a model of the worker's."""
        return any([self._may_use(name, key) for name in self.fleet.models_of(worker)])  # noqa: C419  # as a list is cheaper

    def _may_use(self, model: str, key: ApiKey) -> bool:
        """Return whether `key` may use a model, under its name or by an alias."""
        if key.models is None or model in key.models:
            return True
        return model in [self.models.model_of(name) for name in key.models]

    def serve_queue(self, worker: Worker) -> None:
        """Send queued requests for the models of `worker`, where a request has ended, so that there may be room."""
        self.queues.serve(self.fleet.models_of(worker))
