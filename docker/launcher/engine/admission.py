"""Whether a worker takes requests: told by a file, obeyed by a middleware inside vLLM's API server.

Before it is ready a worker is warmed by requests of its own launcher, which alone may pass: they bear the key that the
file holds. To everybody else it is as if vLLM were still loading, `/health` included, so no gateway sends anything.
A worker that is to stop lets nobody in. vLLM itself answers a request that comes while it drains with 200 and an empty
text (finish reason `abort`), which no client can tell from an answer; refused with 503 instead, the gateway sends it to
another worker. What was let in before goes on; `/metrics` is answered to the end.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

from launcher.engine.question import HEADER
from launcher.files import safe_open
from launcher.settings import STATE_DIR

MIDDLEWARE = "launcher.engine.admission.Admission"
"""What `--middleware` names."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_OPEN = {"/metrics"}
_NOBODY = b"nobody"
_LONGEST_KEY = 256
_LARGEST = 1 << 26  # bytes; the gateway lets less through


def mark(state_dir: Path) -> Path:
    """The file that says it: while it is there only the key that it holds lets anybody in."""
    return state_dir / "closed"


def close_but_for_key(state_dir: Path) -> bytes:
    """From now on only requests with the key that is returned pass. Raises `OSError`."""
    key = secrets.token_hex(16)
    safe_open.replace(mark(state_dir), key)
    return key.encode()


def close(state_dir: Path) -> None:
    """From now on nobody passes. Raises `OSError`."""
    safe_open.replace(mark(state_dir), _NOBODY.decode())


def open_to_all(state_dir: Path) -> None:
    """Everybody passes. Raises `OSError`."""
    mark(state_dir).unlink(missing_ok=True)


def key_wanted(state_dir: str | Path) -> bytes | None:
    """The key that a request must bear; None: it needs none."""
    path = mark(Path(state_dir))
    if not os.path.exists(path):  # on a tmpfs: microseconds
        return None
    try:
        return safe_open.read(path, _LONGEST_KEY)
    except FileNotFoundError:  # opened meanwhile
        return None
    except OSError:
        return _NOBODY


class Admission:
    """ASGI middleware: passes everything on, or refuses what may not pass."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._state_dir = os.environ.get("LAUNCHER_STATE_DIR") or STATE_DIR

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection or request of ASGI."""
        wanted = self._key_wanted(scope)
        if wanted is None or bears(wanted, scope["headers"]):
            await self._app(scope, receive, send)
        else:
            await _read(receive)
            await _refuse(send, is_stopping=wanted == _NOBODY)

    def _key_wanted(self, scope: Scope) -> bytes | None:
        is_open = scope["type"] != "http" or scope["path"] in _OPEN
        return None if is_open else key_wanted(self._state_dir)


def bears(wanted: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request has the key that is wanted; nobody has that of a worker that stops."""
    return wanted != _NOBODY and any(
        name == HEADER and secrets.compare_digest(value, wanted) for name, value in headers
    )


async def _read(receive: Receive) -> None:
    """The request's body, to be forgotten: an answer before its end could be lost with a reset connection."""
    size = 0
    while (message := await receive()).get("more_body") and size < _LARGEST:
        size += len(message.get("body", b""))


async def _refuse(send: Send, *, is_stopping: bool) -> None:
    body = json.dumps({"error": _refusal(is_stopping=is_stopping)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _refusal(*, is_stopping: bool) -> dict[str, str | None]:
    message = (
        "This worker is stopping; ask again" if is_stopping else "This worker is not ready yet; ask again"
    )
    code = "no_worker_available" if is_stopping else "model_loading"
    return {"message": message, "type": "server_error", "param": None, "code": code}
