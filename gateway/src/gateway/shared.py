"""The parts that all calls use."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from gateway.fleet import Fleet
from gateway.models import Models
from gateway.queues import Queues
from gateway.retries import Budget
from gateway.selection import Selector, selector_for
from gateway.settings import Settings
from gateway.stored import Stored
from gateway.upstream import Upstream
from gateway.workers import Worker

if TYPE_CHECKING:
    from gateway.call import Call


@dataclass(slots=True)
class Shared:
    """What all calls use. record: is told of every call when it is over."""

    settings: Settings
    fleet: Fleet
    models: Models
    upstream: Upstream
    random: Random
    record: "Callable[[Call], None]"
    queues: Queues
    budget: Budget = field(default_factory=Budget)
    stored: Stored = field(default_factory=Stored)
    selectors: dict[str, Selector[Worker]] = field(init=False)

    def __post_init__(self) -> None:
        options = self.models.options.items()
        self.selectors = {model: selector_for(chosen, self.random) for model, chosen in options}
