"""A worker's error that can no longer be a status, since a comment has gone out before it: told as an event.

The error stays the worker's own: its object as it is where the route's clients understand it, else its words in one
that they do.
"""

from typing import Final

import orjson

from gateway.api.errors import anthropic_type
from gateway.api.routes import Dialect

MAX_HELD_BYTES: Final = 64 * 1024  # bytes of an error
MAX_QUOTED_CHARACTERS: Final = 1000  # characters of one that is no JSON


class LateError:
    """An error's body, held until it is whole; a `Reading`."""

    whole = True
    tokens = None

    def __init__(self, status: int, dialect: Dialect) -> None:
        self._status = status
        self._dialect = dialect
        self._body = b""

    def passes(self, framed: bytes) -> bool:
        return False

    def feed(self, data: bytes) -> bytes:
        if len(self._body) < MAX_HELD_BYTES:
            self._body += data
        return b""

    def rest(self) -> bytes:
        """The event."""
        return event_of(self._body, self._status, self._dialect)


def event_of(body: bytes, status: int, dialect: Dialect) -> bytes:
    """A worker's error as a server-sent event."""
    name = b"" if dialect is Dialect.OPENAI else b"event: error\n"
    return b"%bdata: %b\n\n" % (name, orjson.dumps(object_of(body, status, dialect)))


def object_of(body: bytes, status: int, dialect: Dialect) -> dict[str, object]:
    """The error's object as clients of the route know it."""
    told = parsed(body)
    error = told.get("error")
    if dialect is Dialect.ANTHROPIC:
        if told.get("type") == "error" and isinstance(error, dict):
            return told
        kind = anthropic_type(status)
        return {"type": "error", "error": {"type": kind, "message": message_of(told, body, status)}}
    if isinstance(error, dict):
        return told
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = message_of(told, body, status)
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def parsed(body: bytes) -> dict[str, object]:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}


def message_of(told: dict[str, object], body: bytes, status: int) -> str:
    """The error's words, wherever servers put them."""
    error = told.get("error")
    for words in (
        error.get("message") if isinstance(error, dict) else error,
        told.get("message"),
        told.get("detail"),
    ):
        if isinstance(words, str) and words:
            return words
    return (
        body.decode(errors="replace").strip()[:MAX_QUOTED_CHARACTERS]
        or f"The worker answered with status {status}"
    )
