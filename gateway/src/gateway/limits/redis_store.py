"""One connection to the Redis that several gateways share, over which operations go in batches: what has come while one
batch was under way makes the next. So a request waits for two answers at most, and costs no task of its own.

A Redis that does not answer in time counts as gone. Then all that waits is told at once, nothing more is taken,
and the connection is tried again until a round trip succeeds. The owner is told of each change once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import zip_longest
from typing import Any, Final, Protocol

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeout

from gateway.limits.redis_address import PASSWORD_FILE, URL, Address

TICKS: Final = 5  # parts of the time in which Redis must answer: see `patience`
AGAIN_S: Final = 0.5  # between two tries to reach a Redis that is gone
MAX_BATCH: Final = 64  # operations: Redis does each in some 50 µs
MAX_WAITING: Final = (
    5_000  # operations: those of a Redis that is about to be found gone, or of one that is too slow
)
Word = str | int
Answer = Sequence[int]
GONE: Final = (RedisError, OSError, TimeoutError)


class Operation(Protocol):
    """A call of the script, such as a request's reservation. is_kept: while Redis is gone it waits, if it has not been
    sent, for Redis to come back."""

    is_kept: bool

    def words(self) -> tuple[Sequence[str], Sequence[Word]]:
        """Return the script's keys and arguments. Called once, when the operation is sent, in the order of sending."""

    def done(self, answer: Answer) -> None:
        """Take the script's answer. Must not raise."""

    def failed(self) -> None:
        """Redis is gone; nobody knows whether the operation, if it was sent, was done. Must not raise."""


class Store:
    """The connection, and the operations that wait for it; one per process. script: in Lua. answer_s: in
    which a connection must be made, and a batch answered. renewals: returns what is sent over each new connection (its
    argument: True), and every `renew_s` seconds. tell: is called with the reason when Redis is found gone, or gone for
    another reason, and with None when it is there."""

    def __init__(
        self, address: Address, answer_s: float, script: str,
        renewals: Callable[[bool], Sequence[Operation]], renew_s: float, tell: Callable[[str | None], None],
    ) -> None:  # fmt: skip
        self._address = address
        self._answer_s = answer_s
        self._client = Redis.from_pool(pool_of(address))
        self._script = script
        self._digest = ""  # by which Redis knows the script
        self._renewals = renewals
        self._renew_s = renew_s
        self._renewed = 0.0  # when they were last sent, by the loop's clock
        self._tell = tell
        self._told: str | None = ""  # what `tell` was last called with; "": nothing yet
        self._waiting: deque[Operation] = deque()
        self._has_work = asyncio.Event()
        self._is_ending = False

    @property
    def is_up(self) -> bool:
        """Whether Redis answers."""
        return self._told is None

    def add(self, operation: Operation) -> bool:
        """Have `operation` sent with the next batch. Return False if it is not taken: Redis is gone, and it is not one
        that is kept, or too many wait."""
        if len(self._waiting) >= MAX_WAITING or not (self.is_up or operation.is_kept):
            return False
        self._waiting.append(operation)
        self._has_work.set()
        return True

    async def connect(self) -> bool:
        """Reach Redis and send the renewals, or tell why not. Return whether it is there. `serve` waits for this
        before it takes requests."""
        try:
            async with patience(self._answer_s):
                self._digest = str(await self._client.script_load(self._script))
            await self._send(self._due_renewals(is_new=True))
        except GONE as error:
            self._lose(reason_of(error, self._address, self._answer_s))
            return False
        self._note(None)
        return True

    async def run(self) -> None:
        """Send what is added, until `end` is called and nothing waits; `serve` runs this as a task."""
        try:
            while not self._is_ending or (self._waiting and self.is_up):
                if self.is_up:
                    await self._send_next()
                elif not await self.connect():
                    await asyncio.sleep(AGAIN_S)
        finally:
            await self._client.aclose()

    def end(self) -> None:
        """Let `run` return once what waits is sent; if Redis is gone, at once or at the next try to reach it."""
        self._is_ending = True
        self._has_work.set()

    async def _send_next(self) -> None:
        """Send what waits, once something does or the renewals are due."""
        try:
            await self._send(await self._next_batch())
        except GONE as error:
            self._lose(reason_of(error, self._address, self._answer_s))

    async def _next_batch(self) -> list[Operation]:
        """Return what waits, once something does, with the renewals first when they are due."""
        left = self._renewed + self._renew_s - now()
        if not self._waiting and left > 0 and not self._is_ending:
            self._has_work.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._has_work.wait()
        batch = list(self._due_renewals()) if now() - self._renewed >= self._renew_s else []
        batch += [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
        return batch

    def _due_renewals(self, *, is_new: bool = False) -> Sequence[Operation]:
        """Return the renewals, to be sent now. is_new: over a new connection."""
        self._renewed = now()
        return self._renewals(is_new)

    async def _send(self, batch: Sequence[Operation]) -> None:
        """Send operations, and pass each its answer. Raises what GONE names, after all of them were told."""
        answers: list[object] = []
        try:
            async with patience(self._answer_s), self._client.pipeline(transaction=False) as pipe:
                for operation in batch:
                    keys, arguments = operation.words()
                    pipe.evalsha(self._digest, len(keys), *keys, *arguments)
                answers = await pipe.execute(raise_on_error=False)
        finally:  # also if this is cancelled
            for operation, answer in zip_longest(batch, answers):
                if isinstance(answer, list):
                    operation.done(answer)
                else:
                    operation.failed()
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer

    def _lose(self, reason: str) -> None:
        """Note that Redis is gone, and tell what waits, but for what is kept."""
        waiting, self._waiting = self._waiting, deque()
        self._note(reason)
        for operation in waiting:
            if not operation.is_kept or not self.add(operation):
                operation.failed()

    def _note(self, reason: str | None) -> None:
        """Note why Redis is gone, None if it is not, and tell of it if that is news."""
        told, self._told = self._told, reason
        if reason != told:
            self._tell(reason)


def now() -> float:
    """Return the time of the running loop's clock."""
    return asyncio.get_running_loop().time()


class Ticker:
    """Ends `timeout` after `seconds`, in TICKS parts: see `patience`."""

    def __init__(self, timeout: asyncio.Timeout, seconds: float) -> None:
        self._timeout = timeout
        self._part = seconds / TICKS
        self._left = TICKS
        self.timer = self._wait()

    def _wait(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._part, self._tick)

    def _tick(self) -> None:
        self._left -= 1
        if self._left:
            self.timer = self._wait()
        else:
            self._timeout.reschedule(now())


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError like `asyncio.timeout`; but a turn of the loop that lasts long, in which no answer can be
    read, counts as one of TICKS parts of the time at most. So it is Redis that was slow, not this process."""
    async with asyncio.timeout(None) as timeout:
        ticker = Ticker(timeout, seconds)
        try:
            yield
        finally:
            ticker.timer.cancel()


def pool_of(address: Address) -> ConnectionPool:
    """Return what makes the connection; nothing is tried twice, since nobody knows what a failed try has done."""
    options: dict[str, Any] = {
        "db": address.db, "username": address.user, "password": address.password,
        "retry": Retry(NoBackoff(), 0), "socket_timeout": None, "socket_connect_timeout": None, "protocol": 2,
    }  # fmt: skip
    if address.socket is not None:
        return ConnectionPool(UnixDomainSocketConnection, 1, path=address.socket, **options)
    options |= {"host": address.host, "port": address.port}
    if address.tls:
        return ConnectionPool(SSLConnection, 1, ssl_ca_certs=address.ca_file, **options)
    return ConnectionPool(Connection, 1, **options)


def reason_of(error: Exception, address: Address, answer_s: float) -> str:
    """Return why Redis is gone, as a sentence that says what to do."""
    match error:
        case AuthenticationError() if address.password is None:
            return f"{address.name} asks for a password: name a file that holds it in {PASSWORD_FILE}"
        case AuthenticationError():
            return f"{address.name} does not take the password that {PASSWORD_FILE} names, or not its user"
        case ReadOnlyError():
            return f"{address.name} is a replica that may not be written to: name its primary in {URL}"
        case ResponseError() if lacks_rights(error):
            return f"{address.name} refuses its user a command; docs/operations.md lists the rights needed: {error}"
        case OutOfMemoryError():
            return f"{address.name} has no memory left: raise its maxmemory"
        case BusyLoadingError():
            return f"{address.name} is reading its data from disk: that ends by itself"
        case TimeoutError() | RedisTimeout():
            return (
                f"{address.name} did not answer within {answer_s:g} s: is it overloaded, stopped or far away?"
            )
        case InvalidResponse():
            return f"{address.name} does not answer as Redis does: is something else there? Check {URL}"
        case ResponseError():
            return f"{address.name} refuses: {error}"
    return f"{address.name} cannot be reached; check {URL} and whether Redis runs: {error}"


def lacks_rights(error: ResponseError) -> bool:
    """Return whether Redis refuses a command to its user, also one within the script, for which it has no code."""
    return isinstance(error, NoPermissionError) or "user executing the script" in str(error)
