"""The load generator: keep-alive connections that each send a request as soon as the last answer is complete.

Every answer is compared with the one expected, and any difference ends the round: figures over errors are worth
nothing.
"""

import asyncio
import functools
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import httptools

GRACE_S = 30  # how long requests that were begun before the end may take beyond it


class WrongAnswer(Exception):
    """An answer was not what the worker had sent; the message shows what came."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask, in turn, on how many connections at once, and whether a body is the one that must come back."""

    connections: int
    bodies: tuple[bytes, ...]
    is_right: Callable[[bytes], bool]

    def requests(self, host: str, port: int) -> list[bytes]:
        """The whole requests, as a plain client sends them."""
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\naccept: */*\r\nuser-agent: bench\r\n"
            f"authorization: Bearer none\r\ncontent-type: application/json\r\ncontent-length: "
        ).encode()
        return [b"%b%d\r\n\r\n%b" % (head, len(body), body) for body in self.bodies]


@dataclass(slots=True)
class Tally:
    """What one run saw. The window is the time with every connection busy: only what falls into it is told.

    `timings` has when each answer was asked for, and the seconds until its first and its last byte. `body_bytes` grows
    with every piece of any answer, so that work can be counted at the window's edges, through the middle of answers;
    once all answers are complete, it is the length of all.
    """

    timings: list[tuple[float, float, float]] = field(default_factory=list)
    answers: int = 0
    pieces: int = 0
    body_bytes: int = 0
    window: tuple[float, float] = (math.inf, -math.inf)
    window_bytes: int = 0
    window_cost: float = 0.0

    @property
    def seconds(self) -> float:
        return self.window[1] - self.window[0]

    @property
    def window_answers(self) -> float:
        """How many answers came within the window; one that is half done at its edge is half an answer."""
        return self.window_bytes / self.body_bytes * self.answers

    def counted(self) -> tuple[list[float], list[float]]:
        """Seconds to the first and to the last byte, of what was asked for within the window, or else of all."""
        within = [timing for timing in self.timings if self.window[0] <= timing[0] <= self.window[1]]
        timings = within or self.timings
        return [first for _, first, _ in timings], [last for _, _, last in timings]


class Client(asyncio.Protocol):
    """One connection. `run` asks until the deadline; the last answer may come after it."""

    def __init__(self, requests: Iterator[bytes], is_right: Callable[[bytes], bool]) -> None:
        self._requests = requests
        self._is_right = is_right
        self._tally = Tally()
        self._deadline = 0.0
        self._sent = 0.0
        self._first_byte: float | None = None
        self._body: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, delay_s: float, deadline: float, tally: Tally) -> None:
        """Asks after `delay_s` and until `deadline` (time.perf_counter), adding to `tally`. Raises WrongAnswer."""
        self._deadline, self._tally = deadline, tally
        await asyncio.sleep(delay_s)
        self._ask()
        await self._done

    def close(self) -> None:
        self._done.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _ask(self) -> None:
        if self._transport is None:
            return
        self._parser = httptools.HttpResponseParser(self)
        self._first_byte, self._body = None, []
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def _fail(self, what: str) -> None:
        if not self._done.done():
            self._done.set_exception(WrongAnswer(what))

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, which inherits nothing

    def data_received(self, data: bytes) -> None:
        if self._first_byte is None:
            self._first_byte = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP/1.1: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(f"connection closed after {len(self._body)} body pieces: {exc}")

    # the parser's callbacks

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._tally.body_bytes += len(body)

    def on_message_complete(self) -> None:
        now, body, status = time.perf_counter(), b"".join(self._body), self._parser.get_status_code()
        if status != 200 or not self._is_right(body):
            self._fail(f"status {status}, {len(body)} bytes that were not expected: {body[:300]!r}")
            return
        self._record(now)
        if now < self._deadline:
            self._ask()
        elif not self._done.done():
            self._done.set_result(None)

    def _record(self, now: float) -> None:
        assert self._first_byte is not None
        tally = self._tally
        tally.answers += 1
        tally.pieces += len(self._body)
        tally.timings.append((self._sent, self._first_byte - self._sent, now - self._sent))


def starting_at(requests: list[bytes], number: int) -> Iterator[bytes]:
    """All requests in turn, without end, from the one of that number on."""
    first = number % len(requests)
    return itertools.cycle(requests[first:] + requests[:first])


@asynccontextmanager
async def connected(plan: Plan, host: str, port: int) -> AsyncIterator[list[Client]]:
    """The plan's clients, connected but silent, so that what follows measures requests and not connections."""
    loop, requests, clients = asyncio.get_running_loop(), plan.requests(host, port), []
    try:
        for number in range(plan.connections):
            make = functools.partial(Client, starting_at(requests, number), plan.is_right)
            _, client = await loop.create_connection(make, host, port)
            clients.append(client)
        yield clients
    finally:
        for client in clients:
            client.close()


async def drive(
    clients: list[Client], ramp_s: float, window_s: float, read_cost: Callable[[], float]
) -> Tally:
    """Starts the clients one by one over `ramp_s`, lets all ask for `window_s`, and waits for the last answers.

    `read_cost` is a meter, read at the window's edges. Raises WrongAnswer.
    """
    tally, deadline = Tally(), time.perf_counter() + ramp_s + window_s
    try:
        async with asyncio.timeout(ramp_s + window_s + GRACE_S), asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                group.create_task(client.run(ramp_s * number / len(clients), deadline, tally))
            await asyncio.sleep(ramp_s)
            await watch_window(tally, deadline, read_cost)
    except* WrongAnswer as errors:
        raise errors.exceptions[0] from None
    except* TimeoutError:
        raise WrongAnswer(f"an answer was not complete {GRACE_S} s after the end of the run") from None
    return tally


async def watch_window(tally: Tally, deadline: float, read_cost: Callable[[], float]) -> None:
    """Opens the tally's window, closes it at `deadline`, and notes the bytes and the cost between."""
    opened, seen, cost = time.perf_counter(), tally.body_bytes, read_cost()
    tally.window = (opened, deadline)
    await asyncio.sleep(deadline - opened)
    tally.window = (opened, time.perf_counter())
    tally.window_bytes, tally.window_cost = tally.body_bytes - seen, read_cost() - cost
