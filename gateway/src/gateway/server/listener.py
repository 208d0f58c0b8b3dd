"""The data port's connections: what they share, the regular check of their deadlines, and how they end at shutdown.
Deadlines need no timer per request: `Listener.watch` checks every connection several times a second."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final, Protocol

from gateway.api.errors import GatewayError
from gateway.api.routes import Routes
from gateway.body.budget import BodyBudget
from gateway.config.settings import Settings
from gateway.http.turns import Turns
from gateway.http.write_coalescer import WriteCoalescer
from gateway.server.request import ClientRequest

CHECK_S: Final = 0.25  # seconds between two checks of a connection, and so the deadlines' precision
GROUPS: Final = 8  # groups of connections, checked one after another: thousands at once would block the loop


class Connection(Protocol):
    """What the listener needs of a client's connection (server/connection.py: `ClientConnection`)."""

    @property
    def busy(self) -> bool:
        """Whether a request's body is arriving or its answer is due: `end_all` counts these connections."""

    def check_deadlines(self, now: float) -> None:
        """Refuse or abort whatever is past its deadline. now: the loop's time in seconds."""

    def close_when_idle(self) -> None:
        """For the shutdown: close the connection now if it is idle, else after the request that runs. Any other (new,
        sending a head, slow to take an answer) may send one more request, whose answer closes it."""

    def abort(self) -> None:
        """Close the connection at once, whatever runs on it: `check_deadlines` has raised, which is a bug."""

    def end_at_shutdown(self) -> None:
        """End the connection because the drain period has passed: the handler of a running request first tells the
        client an error, if it still can."""


@dataclass(slots=True)
class Listener:
    """All connections of the data port and what they share; each gateway process has one. prepare: sets a new request's
    limit, and its handler or refusal; count_lag: called with how many seconds late the loop was at a check; refused:
    called with the error for bytes that are no valid request; report: called with an exception that is a bug."""

    routes: Routes
    settings: Settings
    prepare: Callable[[ClientRequest], None]
    count_lag: Callable[[float], None]
    refused: Callable[[GatewayError], None]
    report: Callable[[Exception], None]
    loop: asyncio.AbstractEventLoop
    coalescer: WriteCoalescer
    budget: BodyBudget
    groups: tuple[set[Connection], ...] = field(default_factory=lambda: tuple(set() for _ in range(GROUPS)))
    closing: bool = False  # the gateway shuts down
    empty: asyncio.Event = field(default_factory=asyncio.Event)  # set when closing and without connections
    turns: Turns = field(init=False)  # for parsing bodies of many small chunks

    def __post_init__(self) -> None:
        self.turns = Turns(self.loop)

    async def watch(self) -> None:
        """Check every connection each CHECK_S, one group at a time, until cancelled; `serve` runs this as a task."""
        for group in cycle(self.groups):
            due = self.loop.time() + CHECK_S / GROUPS
            await asyncio.sleep(CHECK_S / GROUPS)
            now = self.loop.time()
            self.count_lag(max(0.0, now - due))  # a timer may end a little early
            for connection in list(group):
                self._check(connection, now)

    def _check(self, connection: Connection, now: float) -> None:
        """Check one connection's deadlines. It handles bugs itself; if it still raises, report that and abort."""
        try:
            connection.check_deadlines(now)
        except Exception as fault:  # noqa: BLE001  # the boundary of one connection
            self.report(fault)
            connection.abort()

    @property
    def connections(self) -> list[Connection]:
        """A copy, since connections enter and leave while callers go through them."""
        return [connection for group in self.groups for connection in group]

    def enter(self, connection: Connection) -> None:
        """Add a new connection, which calls this itself when it is made."""
        self._group_of(connection).add(connection)

    def _group_of(self, connection: Connection) -> set[Connection]:
        """Return the connection's group, by its address in memory in steps of 64: the lowest bits would not vary."""
        return self.groups[id(connection) // 64 % GROUPS]

    def close_idle(self) -> None:
        """Begin the shutdown: close idle connections now, others after their next answer. `serve.drain` calls it."""
        self.closing = True
        for connection in self.connections:
            connection.close_when_idle()
        self.forget(None)  # sets `empty` if there are none

    def forget(self, connection: Connection | None) -> None:
        """Remove a lost connection (None: none), and set `empty` if the gateway shuts down and none is left."""
        if connection is not None:
            self._group_of(connection).discard(connection)
        if self.closing and not any(self.groups):
            self.empty.set()

    def end_all(self) -> int:
        """End all requests and connections; return how many were busy, for the log. `serve.drain` calls it when time is
        up, after `Queues.clear`: else each request that ends would let one from the queue be sent."""
        left = [connection for connection in self.connections if connection.busy]
        for connection in self.connections:
            connection.end_at_shutdown()
        return len(left)
