"""The limits of keys over several gateways: what this gateway has reserved is asked of the Redis that they share.

The limits of this gateway alone are checked first: what they refuse the gateways together would refuse too, so Redis is
asked only about what passes. If Redis is gone, they hold alone, or no request of a key with limits is taken, as the
operator has chosen. What may be sent twice does no harm: what a process holds, what a gateway has used in a month.
Reservations and settlements are sent once; what is lost of them is forgotten after a minute."""

import secrets
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Final

from gateway.api.errors import GatewayError, Overloaded
from gateway.config.api_keys import ApiKey, Limits
from gateway.limits import refusals
from gateway.limits.estimates import Cost, Used
from gateway.limits.limiter import Limiter, Reservation
from gateway.limits.redis_address import Address
from gateway.limits.redis_store import Answer, Operation, Store, Word
from gateway.limits.refusals import Refusal, Seen
from gateway.limits.shared import Then

RENEW_S: Final = 3.0  # between two renewals of what this process holds
ALIVE_MS: Final = 10_000  # after the last one, until what it holds is forgotten
MAX_NAMES: Final = 500  # in one renewal
LENGTH_MS: Final = 60_000  # of a window
PREFIX: Final = "octet:limits"  # of all keys in Redis
NO_LIMIT: Final = -1
REFUSED: Final = 0  # places in the script's answer: the number of the limit that refuses the request, or 0
SLOT: Final = 1
IN_FLIGHT: Final = 2
MONTH_USED: Final = 3
MONTH_RESERVED: Final = 4
MONTH_HERE: Final = 5
WINDOWS: Final = 6  # the first of three for each window
BY_WINDOW: Final = 3  # the highest number of a limit that is a window's
BY_CONCURRENCY: Final = 4
NO_SLOT: Final = -1  # of a reservation that Redis does not know
RETRY_MESSAGE: Final = (
    "The limits of API key {!r} cannot be checked, since the gateway's Redis does not answer: try again"
)


class Held:
    """What this process holds of one key, as far as Redis was told, or has granted it: requests in flight, and tokens
    reserved for the month."""

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0

    def change(self, requests: int, cost: Cost) -> None:
        """Hold so many requests more (1 or -1) that cost this each."""
        self.requests += requests
        self.tokens += requests * (cost.tokens_in + cost.tokens_out)


class Shared(Reservation):
    """A reservation at this gateway, `local`, that Redis has granted, or that needed no Redis (NO_SLOT)."""

    def __init__(
        self, limiter: "RedisLimiter", key: ApiKey, local: Reservation, slot: int, lines: bytes
    ) -> None:
        super().__init__(local.cost)
        self.lines = lines
        self._limiter = limiter
        self._key = key
        self._local = local
        self._slot = slot
        self._is_settled = False

    def settle(self, used: Used | None) -> None:
        if not self._is_settled:
            self._is_settled = True
            self._local.settle(used)
            self._limiter.settle(self._key, self.cost, self._slot, used)


class RedisLimiter:
    """Asks Redis for all gateways' limits; one per process. limiter: of this gateway's own. gateway: a name that no
    other gateway has, and that goes with its record of the month. is_open: without Redis, this gateway's own limits
    suffice. answer_s, tell: see `Store`."""

    def __init__(
        self, limiter: Limiter, address: Address, gateway: str, tell: Callable[[str | None], None],
        *, answer_s: float, is_open: bool,
    ) -> None:  # fmt: skip
        self._limiter = limiter
        self._gateway = gateway
        self._process = secrets.token_hex(8)
        self._is_open = is_open
        self._held: dict[str, Held] = {}
        script = files("gateway.limits").joinpath("limits.lua").read_text()
        self.store = Store(address, answer_s, script, self._renewals, RENEW_S, tell)

    @property
    def is_up(self) -> bool:
        """See `SharedLimits`."""
        return self.store.is_up

    def confirm(self, key: ApiKey, local: Reservation, then: Then) -> Reservation | None:
        """See `SharedLimits`."""
        if self.store.add(Reserve(self, key, local, then)):
            return None
        return self.without_redis(key, local)

    def without_redis(self, key: ApiKey, local: Reservation) -> Reservation:
        """Return the reservation if this gateway's own limits suffice while Redis is gone, else raise Overloaded."""
        if self._is_open:
            self.held(key.name).change(1, local.cost)
            return Shared(self, key, local, NO_SLOT, local.lines)
        local.settle(None)
        raise Overloaded(RETRY_MESSAGE.format(key.name))

    def grant(self, key: ApiKey, local: Reservation, answer: Answer) -> Reservation:
        """Return the reservation that Redis has granted."""
        cost = local.cost
        self.held(key.name).change(1, cost)
        requests, tokens_in, tokens_out = (one.used for one in windows_of(answer))
        seen = (
            Seen(requests + cost.requests, 0, LENGTH_MS),
            Seen(tokens_in + cost.tokens_in, 0, LENGTH_MS),
            Seen(tokens_out + cost.tokens_out, 0, LENGTH_MS),
        )
        return Shared(self, key, local, answer[SLOT], refusals.lines_of(key.limits, seen))

    def refuse(self, key: ApiKey, local: Reservation, answer: Answer) -> GatewayError:
        """Give this gateway's reservation back, count the refusal, and return its error."""
        local.settle(None)
        limit, error = refusal_of(key, local.cost, answer, self._limiter.month())
        self._limiter.refusals[key.label, limit] += 1
        return error

    def settle(self, key: ApiKey, cost: Cost, slot: int, used: Used | None) -> None:
        """Tell Redis what a request has used. Nobody waits for that; while Redis is gone, it is kept."""
        operation = Settle(self, key, cost, slot, used)
        if not self.store.add(operation):
            operation.failed()

    def held(self, name: str) -> Held:
        """Return what this process holds of the key `name`."""
        found = self._held.get(name)
        if found is None:
            found = self._held[name] = Held()
        return found

    def keys_of(self, name: str) -> list[str]:
        """Return the keys in Redis of one API key, and that of the processes."""
        month = f"month:{self._limiter.month()}"
        parts = ("requests", "tokens_in", "tokens_out", "held", month)
        return [*(f"{PREFIX}:{name}:{part}" for part in parts), f"{PREFIX}:processes"]

    def call(self, word: str, key: ApiKey, cost: Cost) -> list[Word]:
        """Return the beginning of the arguments that a reservation and its settlement have in common."""
        used = self.month_used(key.name)
        return [word, self._process, self._gateway, used, cost.requests, cost.tokens_in, cost.tokens_out]

    def month(self) -> int:
        """Return the number of the month that is counted."""
        return self._limiter.month()

    def month_used(self, name: str) -> int:
        """Return what this gateway has used in the month, as far as it knows: nothing if all rows are other keys' now.
        Redis then keeps what it was told before."""
        try:
            return self._limiter.month_used(name)
        except Overloaded:
            return 0

    def learn_month(self, name: str, known: int, month: int) -> None:
        """Let this gateway's month be at least what Redis knows of it: this may have started again with less. month:
        when Redis was asked; an answer that comes after its end is of no use, since a new one begins at nothing."""
        if month == self._limiter.month() and known > self.month_used(name):
            self._limiter.seed_month({name: known})

    def renewal_of(self, names: Sequence[str]) -> tuple[Sequence[str], Sequence[Word]]:
        """Return the script's keys and arguments that tell what this process holds of some API keys."""
        keys = [f"{PREFIX}:processes", *(f"{PREFIX}:{name}:held" for name in names)]
        amounts = [amount for name in names for amount in (self.held(name).requests, self.held(name).tokens)]
        return keys, ["renew", self._process, self._gateway, ALIVE_MS, *amounts]

    def renewed(self, names: Sequence[str], *, was_known: bool) -> None:
        """Forget the keys of which nothing is held still, since Redis was told that. was_known: Redis knew this
        process."""
        if not was_known:
            for operation in self._months():
                self.store.add(operation)
        for name in names:
            if self._held[name].requests == 0:
                del self._held[name]

    def months_of(self, names: Sequence[str]) -> tuple[Sequence[str], Sequence[Word]]:
        """Return the script's keys and arguments that tell what this gateway has used in the month."""
        month = self._limiter.month()
        keys = [f"{PREFIX}:{name}:month:{month}" for name in names]
        return keys, ["months", self._process, self._gateway, *map(self.month_used, names)]

    def _renewals(self, is_new: bool) -> Sequence[Operation]:
        """Return what tells Redis that this process lives, and what it holds. is_new: the connection is, so that Redis
        may not know the months either."""
        parts = parts_of(list(self._held)) or [[]]
        renewals: list[Operation] = [Renewal(self, some, is_new=is_new) for some in parts]
        return [*renewals, *self._months()] if is_new else renewals

    def _months(self) -> list[Operation]:
        """Return what tells Redis what this gateway has used in the month."""
        return [Months(self, some) for some in parts_of(self._limiter.names())]


class Reserve:
    """The question whether the gateways together grant a reservation; `then` gets the answer."""

    is_kept = False

    def __init__(self, limiter: RedisLimiter, key: ApiKey, local: Reservation, then: Then) -> None:
        self._limiter = limiter
        self._key = key
        self._local = local
        self._then = then
        self._month = 0  # when it was sent

    def words(self) -> tuple[Sequence[str], Sequence[Word]]:
        key = self._key
        self._month = self._limiter.month()
        keys = self._limiter.keys_of(key.name)  # before what was used: that is never of an earlier month
        call = self._limiter.call("reserve", key, self._local.cost)
        return keys, [*call, *limits_of(key.limits)]

    def done(self, answer: Answer) -> None:
        self._limiter.learn_month(self._key.name, answer[MONTH_HERE], self._month)
        if answer[REFUSED]:
            self._then(self._limiter.refuse(self._key, self._local, answer))
        else:
            self._then(self._limiter.grant(self._key, self._local, answer))

    def failed(self) -> None:
        self._limiter.held(self._key.name)  # so that the next renewal tells Redis, which may have granted it
        try:
            self._then(self._limiter.without_redis(self._key, self._local))
        except Overloaded as error:
            self._then(error)


class Settle:
    """What a request has used that is over."""

    is_kept = True

    def __init__(self, limiter: RedisLimiter, key: ApiKey, cost: Cost, slot: int, used: Used | None) -> None:
        self._limiter = limiter
        self._key = key
        self._cost = cost
        self._slot = slot
        self._used = used
        self._is_held = True

    def words(self) -> tuple[Sequence[str], Sequence[Word]]:
        key, used = self._key, self._used
        self._let_go()
        amounts = (0, 0, 0) if used is None else (self._cost.requests, used.tokens_in, used.tokens_out)
        keys = self._limiter.keys_of(key.name)
        call = self._limiter.call("settle", key, self._cost)
        return keys, [*call, *limits_of(key.limits)[:3], self._slot, *amounts]

    def done(self, answer: Answer) -> None:
        pass

    def failed(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        """Let the next renewal tell that the request holds nothing any more."""
        if self._is_held:
            self._is_held = False
            self._limiter.held(self._key.name).change(-1, self._cost)


class Renewal:
    """Says that this process lives, and what it holds of some API keys, whatever Redis has of that: a settlement may
    have been lost."""

    is_kept = False

    def __init__(self, limiter: RedisLimiter, names: Sequence[str], *, is_new: bool) -> None:
        self._limiter = limiter
        self._names = names
        self._is_new = is_new
        self._unused: Sequence[str] = ()  # those of which Redis is told that nothing is held

    def words(self) -> tuple[Sequence[str], Sequence[Word]]:
        self._unused = [name for name in self._names if self._limiter.held(name).requests == 0]
        return self._limiter.renewal_of(self._names)

    def done(self, answer: Answer) -> None:
        self._limiter.renewed(self._unused, was_known=self._is_new or answer[0] == 1)

    def failed(self) -> None:
        pass


class Months:
    """Says what this gateway has used in the month, of some API keys."""

    is_kept = False

    def __init__(self, limiter: RedisLimiter, names: Sequence[str]) -> None:
        self._limiter = limiter
        self._names = names
        self._month = 0  # when it was sent

    def words(self) -> tuple[Sequence[str], Sequence[Word]]:
        self._month = self._limiter.month()
        return self._limiter.months_of(self._names)

    def done(self, answer: Answer) -> None:
        for name, known in zip(self._names, answer, strict=True):
            self._limiter.learn_month(name, known, self._month)

    def failed(self) -> None:
        pass


def limits_of(limits: Limits) -> list[int]:
    """Return limits as the script knows them: -1 for none."""
    found = (limits.rpm, limits.tpm_in, limits.tpm_out, limits.concurrency, limits.monthly_tokens)
    return [NO_LIMIT if one is None else one for one in found]


def refusal_of(key: ApiKey, cost: Cost, answer: Answer, month: int) -> Refusal:
    """Return which limit refuses a request by the script's answer, and the error."""
    if answer[REFUSED] <= BY_WINDOW:
        return refusals.by_window(key, cost, windows_of(answer))
    if answer[REFUSED] == BY_CONCURRENCY:
        return refusals.by_concurrency(key, answer[IN_FLIGHT])
    return refusals.by_month(key, cost, answer[MONTH_USED], answer[MONTH_RESERVED], month)


def windows_of(answer: Answer) -> list[Seen]:
    """Return what the script has seen of the windows, without the request that was asked about."""
    return [Seen(*answer[at : at + 3]) for at in range(WINDOWS, WINDOWS + 9, 3)]


def parts_of(names: Sequence[str]) -> list[Sequence[str]]:
    """Return `names` in parts that can be told at once."""
    return [names[at : at + MAX_NAMES] for at in range(0, len(names), MAX_NAMES)]
