"""Answer a client's request with an ASGI application: the pages of `control/`, made in a task and sent as one piece."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.api.errors import GatewayError, GatewayFault
from gateway.http.headers import Headers
from gateway.server.request import ClientRequest

BODY_BYTES = 64 * 1024  # the largest request body accepted: these pages need none
Message = MutableMapping[str, Any]  # ASGI's event and scope
Application = Callable[..., Awaitable[None]]  # of ASGI


class AsgiHandler:
    """The `Handler` of one such request: server/request.py says when its methods are called. app: the application."""

    def __init__(self, app: Application, request: ClientRequest, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._request = request
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._status = 0
        self._headers: Headers = []
        self._parts: list[bytes] = []

    def start(self) -> None:
        self._task = self._loop.create_task(self._run())

    def on_gone(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def check_deadlines(self, now: float) -> None:
        """Do nothing: pages have no deadline, since none of them waits for anything."""

    def pause(self) -> None: ...  # the answer is one piece, which is in memory already

    def resume(self) -> None: ...

    def fail(self, error: GatewayError) -> None:
        """Answer `error`: nothing is sent before the page is whole, so the status can still tell it."""
        self._request.refuse(error, [])

    def end_at_shutdown(self) -> None:
        """Cancel the task. The client gets no answer: its connection is closed before the task ends."""
        self.on_gone()

    async def _run(self) -> None:
        """Run the application and send what it answered. If it raises, the client gets 500 and asyncio logs it."""
        try:
            await self._app(scope_of(self._request), self._receive, self._send)
        finally:
            self._answer()

    async def _receive(self) -> Message:
        """Give the application the whole request body: it calls this, once, as ASGI's `receive`."""
        return {"type": "http.request", "body": self._request.body(), "more_body": False}

    async def _send(self, message: Message) -> None:
        """Collect status, headers and body for `_answer`; the application calls this as ASGI's `send`."""
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))

    def _answer(self) -> None:
        """Send the collected answer, or 500 if there is none; nothing if `fail` has answered or the client has left."""
        request = self._request
        if request.over:
            return
        if not self._status:
            request.refuse(GatewayFault(), [])
            return
        request.begin(self._status, self._headers)
        request.write(b"".join(self._parts))
        request.end()


def scope_of(request: ClientRequest) -> Message:
    """Return the request's ASGI scope, by which the application finds the page. Addresses are left out: none asks."""
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
        "method": request.method.decode("latin-1"), "path": request.path.decode(errors="replace"),
        "raw_path": request.target.partition(b"?")[0], "query_string": request.target.partition(b"?")[2],
        "root_path": "", "headers": request.headers, "client": None, "server": None, "state": {},
    }  # fmt: skip
