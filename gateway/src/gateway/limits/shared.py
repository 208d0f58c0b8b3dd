"""What the gateway that shares limits with others asks: whether all of them together grant what it has reserved."""

from collections.abc import Callable
from typing import Protocol

from gateway.api.errors import GatewayError
from gateway.config.api_keys import ApiKey
from gateway.limits.limiter import Reservation

Then = Callable[[Reservation | GatewayError], None]


class SharedLimits(Protocol):
    """The limits of several gateways, as a request sees them; `RedisLimiter` has them in Redis."""

    @property
    def is_up(self) -> bool:
        """Whether they can be asked now, for the metrics."""

    def confirm(self, key: ApiKey, local: Reservation, then: Then) -> Reservation | None:
        """Ask whether all gateways together grant what this one has reserved for a key with limits. Return None if
        `then` will be called: with the reservation, or with the error that refuses the request, in which case `local`
        has been given back. Return the reservation, or raise Overloaded, if nobody can be asked."""
