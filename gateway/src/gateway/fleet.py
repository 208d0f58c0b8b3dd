"""The fleet: every slug's workers and weights job as last seen, and what that means for a model's clients. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from gateway.cards import Card, Catalog
from gateway.errors import GatewayError, ModelLoading, ModelNotFound, NoWorkerAvailable
from gateway.workers import Worker, WorkerState

Address = tuple[str, int]


class ModelState(IntEnum):
    """What a client may expect of a model; of several slugs the best one counts."""

    ABSENT = 0
    DOWN = 1
    LOADING = 2
    READY = 3


@dataclass(slots=True)
class SlugStatus:
    """What was last seen of one slug. `weights` is the weights job's own progress report, or None."""

    workers: dict[Address, Worker] = field(default_factory=dict)
    weights: Mapping[str, object] | None = None

    @property
    def ready(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.state is WorkerState.READY]

    @property
    def state(self) -> ModelState:
        if self.ready:
            return ModelState.READY
        if any(worker.state is WorkerState.STARTING for worker in self.workers.values()):
            return ModelState.LOADING
        if self.workers:
            return ModelState.DOWN
        return ModelState.LOADING if self.weights is not None else ModelState.ABSENT


@dataclass(frozen=True, slots=True)
class Fleet:
    """The catalog and what is running of it."""

    catalog: Catalog
    slugs: Mapping[str, SlugStatus]

    @classmethod
    def of(cls, catalog: Catalog) -> "Fleet":
        return cls(catalog, {card.slug: SlugStatus() for card in catalog.cards})

    def workers(self) -> list[Worker]:
        return [worker for status in self.slugs.values() for worker in status.workers.values()]

    def ready_workers(self, cards: Iterable[Card]) -> list[Worker]:
        """The pool of a model: the ready workers of every slug that serves it."""
        return [worker for card in cards for worker in self.slugs[card.slug].ready]

    def model_state(self, model: str) -> ModelState:
        return max(self.slugs[card.slug].state for card in self.catalog.resolve(model))

    def ready_models(self) -> list[str]:
        return [name for name in self.catalog.names if self.model_state(name) is ModelState.READY]

    def refresh(self, slug: str, addresses: Iterable[Address]) -> tuple[list[Worker], list[Worker]]:
        """Makes `slug`'s workers those at `addresses`; returns (joined, left). Known addresses keep their worker."""
        known, wanted = self.slugs[slug].workers, list(dict.fromkeys(addresses))
        left = [known.pop(address) for address in list(known) if address not in wanted]
        joined = [Worker(slug, *address) for address in wanted if address not in known]
        known.update({(worker.host, worker.port): worker for worker in joined})
        return joined, left

    def why_unavailable(self, model: str) -> GatewayError:
        """The error for a request whose model has no ready worker; says what to do."""
        cards = self.catalog.resolve(model)
        if not cards:
            return ModelNotFound(f"The model {model[:100]!r} does not exist. {self._known_models()}", "model")
        return _unavailable(model, cards, self.model_state(model), self._progress(cards))

    def _known_models(self) -> str:
        ready = self.ready_models()
        return (
            f"Ready: {', '.join(ready)}"
            if ready
            else f"Declared: {', '.join(self.catalog.names)}; none is ready"
        )

    def _progress(self, cards: Iterable[Card]) -> str:
        reports = (self.slugs[card.slug].weights for card in cards)
        return next((describe_weights(report) for report in reports if report is not None), "")


def _unavailable(model: str, cards: tuple[Card, ...], state: ModelState, progress: str) -> GatewayError:
    if state is ModelState.ABSENT:
        return ModelNotFound(
            f"The model {model!r} is declared but not started: {cards[0].start_command}", "model"
        )
    if state is ModelState.LOADING:
        return ModelLoading(f"The model {model!r} is loading{progress}; try again after Retry-After seconds")
    return NoWorkerAvailable(
        f"No worker of the model {model!r} answers; on the node: docker compose ps {cards[0].slug}"
    )


def describe_weights(report: Mapping[str, object]) -> str:
    """A weights job's progress in words, such as ` (weights 43 %, about 12 min)`; empty if there is nothing to say."""
    done, total, eta = (report.get(key) for key in ("bytes_done", "bytes_total", "eta_s"))
    if not isinstance(done, int | float) or not isinstance(total, int | float) or total <= 0:
        return " (weights)"
    remaining = f", about {max(1, round(eta / 60))} min" if isinstance(eta, int | float) else ""
    return f" (weights {100 * done / total:.0f} %{remaining})"
