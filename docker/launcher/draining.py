"""A worker that is to stop takes no more requests: told by a file, obeyed by a middleware inside vLLM's API server.

vLLM itself answers a request that comes while it drains with 200 and an empty text (finish reason `abort`), which no
client can tell from an answer. Refused with 503 instead, the gateway sends it to another worker. What was let in before
goes on; `/metrics` is answered to the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from launcher.settings import STATE_DIR

MIDDLEWARE = "launcher.draining.Draining"
"""What `--middleware` names."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_OPEN = {"/metrics"}
_LARGEST = 1 << 26  # bytes; the gateway lets less through
_REFUSAL = {
    "message": "This worker is stopping; ask again",
    "type": "server_error",
    "param": None,
    "code": "no_worker_available",
}


def mark(state_dir: Path) -> Path:
    """The file that says it."""
    return state_dir / "draining"


def begin(state_dir: Path) -> None:
    """From now on new requests are refused. Raises `OSError`."""
    mark(state_dir).touch()


def forget(state_dir: Path) -> None:
    """A start that comes after: requests are taken again. Raises `OSError`."""
    mark(state_dir).unlink(missing_ok=True)


class Draining:
    """ASGI middleware: passes everything on, and refuses once the mark is there."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._mark = str(mark(Path(os.environ.get("LAUNCHER_STATE_DIR") or STATE_DIR)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection or request of ASGI."""
        if scope["type"] == "http" and scope["path"] not in _OPEN and self._is_draining():
            await _read(receive)
            await _refuse(send)
        else:
            await self._app(scope, receive, send)

    def _is_draining(self) -> bool:
        return os.path.exists(self._mark)  # on a tmpfs: microseconds


async def _read(receive: Receive) -> None:
    """The request's body, to be forgotten: an answer before its end could be lost with a reset connection."""
    size = 0
    while (message := await receive()).get("more_body") and size < _LARGEST:
        size += len(message.get("body", b""))


async def _refuse(send: Send) -> None:
    body = json.dumps({"error": _REFUSAL}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
