"""Whether a worker admits requests: the launcher writes a file, and a middleware inside vLLM's API server reads it.
During warm-up only the launcher's own requests are admitted: they carry the key that the file holds. Everybody else
gets 503, on `/health` too, as if vLLM were still loading, so no gateway sends anything. A worker that is stopping
admits nothing new. vLLM itself would answer 200 and an empty text (finish reason `abort`) while it drains, which no
client can tell from an answer; on a 503 the gateway tries another worker. Requests admitted earlier go on, and
`/metrics` is always answered. Two processes run this module: the launcher and vLLM's API server."""

import json
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

from launcher.engine.question import KEY_HEADER
from launcher.files import safe_open
from launcher.settings import STATE_DIR

MIDDLEWARE = "launcher.engine.admission.Admission"  # for vLLM's option `--middleware`: the class below
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_ALWAYS_ADMITTED = {"/metrics"}
_NOBODY = b"nobody"  # content of the file while the worker stops: a key that no request has
_MAX_KEY = 256  # bytes of the file that are read; a key has 32
_MAX_BODY_BYTES = 1 << 26  # read of a refused request's body (64 MiB); the gateway's default limit is 50 MiB


def closed_file(state_dir: Path) -> Path:
    """Return the path of the file by which the two processes talk: while it exists, a request needs the key in it."""
    return state_dir / "closed"


def close_but_for_key(state_dir: Path) -> bytes:
    """Admit only requests with a new key from now on, for a warm-up, and return the key. Raises `OSError`."""
    key = secrets.token_hex(16)
    safe_open.replace(closed_file(state_dir), key)
    return key.encode()


def close(state_dir: Path) -> None:
    """Admit nothing but `/metrics` from now on, since the worker stops. Raises `OSError`."""
    safe_open.replace(closed_file(state_dir), _NOBODY.decode())


def open_to_all(state_dir: Path) -> None:
    """Admit everything, after the warm-up or if there is none; removes what an earlier run left. Raises `OSError`."""
    closed_file(state_dir).unlink(missing_ok=True)


def key_wanted(state_dir: str | Path) -> bytes | None:
    """Return the key that a request must have; None if all are admitted, and a key that none has if the file cannot be
    read. `Admission` asks it for every request, in the API server's event loop."""
    path = closed_file(Path(state_dir))
    if not os.path.exists(path):  # takes microseconds on a tmpfs, so the API server's loop may do it
        return None
    try:
        return safe_open.read(path, _MAX_KEY)
    except FileNotFoundError:  # removed since the line above
        return None
    except OSError:
        return _NOBODY


class Admission:
    """ASGI middleware: passes a request on to vLLM, or answers 503. vLLM makes one, in its API server."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._state_dir = os.environ.get("LAUNCHER_STATE_DIR") or STATE_DIR

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request for vLLM's server. Other ASGI scopes (`lifespan`, a WebSocket) are always passed on."""
        is_always_admitted = scope["type"] != "http" or scope["path"] in _ALWAYS_ADMITTED
        wanted = None if is_always_admitted else key_wanted(self._state_dir)
        if wanted is None or has_key(wanted, scope["headers"]):
            await self._app(scope, receive, send)
        else:
            await _drain(receive)
            await _refuse(send, is_stopping=wanted == _NOBODY)


def has_key(wanted: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether the headers contain the key; False for every request while the worker stops."""
    return wanted != _NOBODY and any(
        name == KEY_HEADER and secrets.compare_digest(value, wanted) for name, value in headers
    )


async def _drain(receive: Receive) -> None:
    """Read a refused request's body and drop it, 64 MiB at most: an answer before its end could be lost to a reset."""
    size = 0
    while (message := await receive()).get("more_body") and size < _MAX_BODY_BYTES:
        size += len(message.get("body", b""))


async def _refuse(send: Send, *, is_stopping: bool) -> None:
    """Answer 503 with `retry-after: 1`, in the shape of the gateway's errors."""
    body = json.dumps({"error": _refusal(is_stopping=is_stopping)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _refusal(*, is_stopping: bool) -> dict[str, str | None]:
    """Return the error object, with the gateway's code for a model that loads, or that no worker can serve now."""
    message = (
        "This worker is stopping; ask again" if is_stopping else "This worker is not ready yet; ask again"
    )
    code = "no_worker_available" if is_stopping else "model_loading"
    return {"message": message, "type": "server_error", "param": None, "code": code}
