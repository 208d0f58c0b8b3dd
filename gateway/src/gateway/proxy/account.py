"""What a request reserves of its API key's limits when it comes, and settles when it is over."""

from collections.abc import Callable
from functools import partial
from typing import Final

from gateway.api.errors import GatewayError
from gateway.api.routes import Kind, Route
from gateway.body.reader import Fields, ParsedBody
from gateway.config.api_keys import ApiKey
from gateway.limits.estimates import MOST_TOKENS, Cost, Estimates, Model, Used
from gateway.limits.limiter import Limiter, Reservation
from gateway.limits.shared import SharedLimits
from gateway.proxy.token_usage import Tokens

OUTPUT_FIELDS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
MAX_ANSWERS: Final = 128  # as many as the field policy takes in `n`


class Account:
    """The reservation of one request; its handler owns it. Made only for keys with limits. Raises as `Limiter.reserve`
    does."""

    def __init__(
        self,
        limiter: Limiter,
        estimates: Estimates,
        key: ApiKey,
        route: Route,
        model: str,
        parsed: ParsedBody,
    ) -> None:
        self._route = route
        self._known: Model | None = estimates.of(model) if route.prompts else None
        self._text_bytes = parsed.size - parsed.media_bytes
        self._has_media = bool(parsed.media_bytes or parsed.addresses)
        self._answers = answers_of(parsed.fields)
        cost = Cost() if self._known is None else cost_of(self._known, route, self._text_bytes, parsed.fields)
        self._key = key
        self._is_closed = False
        self._reservation: Reservation = limiter.reserve(key, cost)

    @property
    def lines(self) -> bytes:
        """The header lines for the answer."""
        return self._reservation.lines

    def confirm(self, shared: SharedLimits, then: Callable[[GatewayError | None], None]) -> bool:
        """Ask `shared` whether the reservation stands. Return False if `then` will be called, with what refuses the
        request or None; True if nobody can be asked, and it stands. Raises Overloaded if it then does not."""
        found = shared.confirm(self._key, self._reservation, partial(self._on_confirmed, then))
        if found is None:
            return False
        self._reservation = found
        return True

    def _on_confirmed(
        self, then: Callable[[GatewayError | None], None], found: Reservation | GatewayError
    ) -> None:
        """Take what `shared` has answered. If the request has ended meanwhile, give the reservation back."""
        if isinstance(found, GatewayError):
            then(found)
        elif self._is_closed:
            found.settle(None)
        else:
            self._reservation = found
            then(None)

    def close(self, tokens: Tokens | None, *, attempts: int, ending: str, answered: bool) -> None:
        """Settle. tokens: what the worker said; attempts: how often the request was sent; answered: the worker's good
        answer has begun."""
        self._is_closed = True
        if self._route.kind is Kind.STORED:
            tokens = None  # they were counted when the response was made
        if tokens is not None and ending == "complete":
            self._learn(tokens[0], tokens[1])
        self._reservation.settle(
            used_of(self._reservation.cost, tokens, attempts=attempts, ending=ending, answered=answered)
        )

    def _learn(self, prompt: int, completion: int) -> None:
        """Learn from an answer what requests to its model cost."""
        known = self._known
        if known is None:
            return
        if not self._has_media and self._text_bytes > 0:
            known.learn_prompt(self._text_bytes, prompt)
        if self._route.generates:
            known.learn_answer(completion // self._answers)


def cost_of(known: Model, route: Route, text_bytes: int, fields: Fields) -> Cost:
    """Return what a request may need: its prompt by the bytes of its text, its answer by what it allows, or as long as
    the model's answers are on average if it says nothing."""
    tokens_in = int(text_bytes * known.per_byte) + 1
    if not route.generates:
        return Cost(tokens_in)
    answers = answers_of(fields)
    allowed = [most for name in OUTPUT_FIELDS if (most := number(fields.get(name))) is not None]
    if allowed:
        return Cost(tokens_in, max(allowed) * answers)  # which of them a worker goes by depends on the route
    return Cost(tokens_in, int(known.out * answers) + 1)


def answers_of(fields: Fields) -> int:
    """Return how many answers a request asks for at once, by `n`."""
    return min(number(fields.get("n")) or 1, MAX_ANSWERS)


def number(value: object) -> int | None:
    """Return the value of a field if it is a count, which may be written as a text, but at most MOST_TOKENS; else None:
    the worker judges it."""
    if isinstance(value, int):
        return min(value, MOST_TOKENS) if value >= 0 else None
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return min(int(value), MOST_TOKENS)
    return None


def used_of(cost: Cost, tokens: Tokens | None, *, attempts: int, ending: str, answered: bool) -> Used | None:
    """Return what a request is charged that is over. None: it was sent to no worker, so it counts for nothing. What no
    worker has told stays as it was reserved if work was done for it: if the answer had begun, or the client did not
    wait for it, since else whoever leaves early would pay nothing. If workers failed, only the request counts. A prompt
    of no tokens is one that was not told before the client left, as in a stream of `/v1/responses`."""
    if tokens is not None:
        return Used(tokens[0] or cost.tokens_in, tokens[1])
    if attempts == 0:
        return None
    if answered or ending == "client_gone":
        return Used(cost.tokens_in, cost.tokens_out)
    return Used(0, 0)
