"""The data port: every client's connection, whose deadlines are checked several times a second, and their end.

So deadlines cost nothing per request.
"""

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

LOOK_S: Final = 0.25  # between two looks at every connection
PARTS: Final = 8  # of the connections, looked at in turn: thousands at once would hold the loop up


class Connection(Protocol):
    """A client's connection."""

    @property
    def busy(self) -> bool:
        """Whether a request's answer is due."""
        ...

    def look(self, now: float) -> None:
        """Ends what takes too long. now: seconds of the loop's clock."""
        ...

    def close_when_idle(self) -> None: ...

    def abort(self) -> None:
        """Ends the connection, whatever runs on it."""
        ...

    def shut(self) -> None:
        """Ends the request that runs, and the connection."""
        ...


@dataclass(slots=True)
class Listener:
    """What all connections of the data port share. prepare: gives a request its limit, handler or refusal;
    count_lag: is told how late the loop comes to its looks, in seconds; refused: is told of what is no request;
    report: of faults of the gateway's own.
    """

    routes: Routes
    settings: Settings
    prepare: Callable[[ClientRequest], None]
    count_lag: Callable[[float], None]
    refused: Callable[[GatewayError], None]
    report: Callable[[Exception], None]
    loop: asyncio.AbstractEventLoop
    coalescer: WriteCoalescer
    budget: BodyBudget
    parts: tuple[set[Connection], ...] = field(default_factory=lambda: tuple(set() for _ in range(PARTS)))
    closing: bool = False
    empty: asyncio.Event = field(default_factory=asyncio.Event)  # set once it closes and nobody is left
    turns: Turns = field(init=False)  # of taking many small chunks apart

    def __post_init__(self) -> None:
        self.turns = Turns(self.loop)

    async def watch(self) -> None:
        """Looks at every connection again and again, at a part of them at a time, until cancelled."""
        for part in cycle(self.parts):
            due = self.loop.time() + LOOK_S / PARTS
            await asyncio.sleep(LOOK_S / PARTS)
            now = self.loop.time()
            self.count_lag(max(0.0, now - due))
            for connection in list(part):
                self._look_at(connection, now)

    def _look_at(self, connection: Connection, now: float) -> None:
        try:
            connection.look(now)
        except Exception as fault:  # noqa: BLE001  # the boundary of one connection
            self.report(fault)
            connection.abort()

    @property
    def connections(self) -> list[Connection]:
        return [connection for part in self.parts for connection in part]

    def enter(self, connection: Connection) -> None:
        """A connection has come; while the port closes it is too late for that."""
        self._part_of(connection).add(connection)
        if self.closing:
            connection.close_when_idle()

    def _part_of(self, connection: Connection) -> set[Connection]:
        return self.parts[id(connection) // 64 % PARTS]

    def close_idle(self) -> None:
        """From now on a connection closes with its last answer."""
        self.closing = True
        for connection in self.connections:
            connection.close_when_idle()
        self.forget(None)

    def forget(self, connection: Connection | None) -> None:
        """A connection has gone."""
        if connection is not None:
            self._part_of(connection).discard(connection)
        if self.closing and not any(self.parts):
            self.empty.set()

    def shut(self) -> int:
        """Ends every request that is left; returns how many were."""
        left = [connection for connection in self.connections if connection.busy]
        for connection in self.connections:
            connection.shut()
        return len(left)
