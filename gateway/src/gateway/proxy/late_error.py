"""Late errors: turn a worker's error answer into an event, when comments have begun the stream with status 200. Pure.

The worker's error object is sent as it is if the route's clients understand it. Otherwise its message is put into an
object that they do."""

from typing import Final

import orjson

from gateway.api.errors import anthropic_type
from gateway.api.routes import Dialect

MAX_HELD_BYTES: Final = 64 * 1024  # bytes of an error's body that are kept; the rest is dropped
MAX_QUOTED_CHARACTERS: Final = 1000  # characters of an error's body that is not JSON, as the event's message


class LateError:
    """A `ResponseFilter` for an error that comes after a comment: it holds the whole body and makes an event of it."""

    whole = True  # however much of the error came, the event tells it
    tokens = None  # an error has no usage

    def __init__(self, status: int, dialect: Dialect) -> None:
        self._status = status
        self._dialect = dialect
        self._body = b""

    def pass_on(self, framed: bytes) -> bytes:
        return b""  # `feed` must see each piece

    def feed(self, data: bytes) -> bytes:
        """Hold the piece back; drop it if MAX_HELD_BYTES are held already."""
        if len(self._body) < MAX_HELD_BYTES:
            self._body += data
        return b""

    def rest(self) -> bytes:
        """Return the event for the whole body, which has ended."""
        return event_of(self._body, self._status, self._dialect)


def event_of(body: bytes, status: int, dialect: Dialect) -> bytes:
    """Return a worker's error, its status and body, as a server-sent event in the route's dialect."""
    name = b"" if dialect is Dialect.OPENAI else b"event: error\n"
    return b"%bdata: %b\n\n" % (name, orjson.dumps(error_object(body, status, dialect)))


def error_object(body: bytes, status: int, dialect: Dialect) -> dict[str, object]:
    """Return the error object in the form that clients of the dialect read (RESPONSES has OPENAI's): the worker's own
    if it has that form."""
    fields = json_object(body)
    error = fields.get("error")
    if dialect is Dialect.ANTHROPIC:
        if fields.get("type") == "error" and isinstance(error, dict):
            return fields
        kind = anthropic_type(status)
        return {"type": "error", "error": {"type": kind, "message": message_of(fields, body, status)}}
    if isinstance(error, dict):
        return fields
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = message_of(fields, body, status)
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def json_object(body: bytes) -> dict[str, object]:
    """Return the JSON object in `body`, or {} if it is anything else, such as a proxy's HTML page."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def message_of(fields: dict[str, object], body: bytes, status: int) -> str:
    """Return the error's message, wherever in `fields` servers put it, else the body's text, else the status."""
    error = fields.get("error")
    for words in (
        error.get("message") if isinstance(error, dict) else error,
        fields.get("message"),
        fields.get("detail"),
    ):
        if isinstance(words, str) and words:
            return words
    return (
        body.decode(errors="replace").strip()[:MAX_QUOTED_CHARACTERS]
        or f"The worker answered with status {status}"
    )
