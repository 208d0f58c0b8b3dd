"""The data port's door: every connection of a client, looked at several times a second, and shut at the end.

So deadlines cost nothing per request.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.outbox import Outbox
from gateway.request import ClientRequest
from gateway.routes import Routes
from gateway.settings import Settings

LOOK_S = 0.25  # between two looks at every connection


class Visitor(Protocol):
    """A client's connection."""

    @property
    def busy(self) -> bool:
        """Whether a request's answer is due."""
        ...

    def look(self, now: float) -> None:
        """Ends what takes too long. now: seconds of the loop's clock."""
        ...

    def close_when_idle(self) -> None: ...

    def shut(self) -> None:
        """Ends the request that runs, and the connection."""
        ...


@dataclass(slots=True)
class Door:
    """What all connections of the data port share. prepare: gives a request its limit, handler or refusal;
    count_lag: is told how late the loop comes to its looks, in seconds.
    """

    routes: Routes
    settings: Settings
    prepare: Callable[[ClientRequest], None]
    count_lag: Callable[[float], None]
    loop: asyncio.AbstractEventLoop
    outbox: Outbox
    connections: set[Visitor] = field(default_factory=set)
    closing: bool = False
    empty: asyncio.Event = field(
        default_factory=asyncio.Event
    )  # set once it closes and the last connection has gone

    async def watch(self) -> None:
        """Looks at every connection again and again, until cancelled."""
        while True:
            due = self.loop.time() + LOOK_S
            await asyncio.sleep(LOOK_S)
            now = self.loop.time()
            self.count_lag(max(0.0, now - due))
            for connection in list(self.connections):
                connection.look(now)

    def close_idle(self) -> None:
        """From now on a connection closes with its last answer."""
        self.closing = True
        for connection in list(self.connections):
            connection.close_when_idle()
        self.forget(None)

    def forget(self, connection: Visitor | None) -> None:
        """A connection has gone."""
        if connection is not None:
            self.connections.discard(connection)
        if self.closing and not self.connections:
            self.empty.set()

    def shut(self) -> int:
        """Ends every request that is left; returns how many were."""
        left = [connection for connection in self.connections if connection.busy]
        for connection in list(self.connections):
            connection.shut()
        return len(left)
