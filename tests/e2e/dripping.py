"""A middleware for vLLM whose `/health` sends a byte every half second until its client has gone, once a file says so.

`HOSTILE_DRIPS` names the file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
EVERY_S = 0.5


class Dripping:
    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if not drips(scope):
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()  # the request, which has no body
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b".", "more_body": True})
            await asyncio.sleep(EVERY_S)


def drips(scope: Message) -> bool:
    return (
        scope["type"] == "http" and scope["path"] == "/health" and os.path.exists(os.environ["HOSTILE_DRIPS"])
    )
