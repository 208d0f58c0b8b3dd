"""Choose request ids. The client's own id is kept, so that its log and ours name the same request. The worker gets an
id that is unique, since vLLM mixes up two requests with the same id. Pure."""

import re
from typing import Final

from gateway.http.headers import Headers, get

CLIENTS: Final = re.compile(rb"[A-Za-z0-9._:=-]{1,128}")  # ids of clients that are accepted
TAIL: Final = 12  # hex digits of our own that are appended to a client's id: 48 random bits


def request_ids(headers: Headers, own: bytes) -> tuple[bytes, bytes]:
    """Return the id for the client and the log, and the one for the worker. Both come from the request's `x-request-id`
    if that is short and plain; else both are `own`, a fresh id in hex digits."""
    given = get(headers, b"x-request-id")
    if given is None or CLIENTS.fullmatch(given) is None:
        return own, own
    return given, b"%b-%b" % (given, own[:TAIL])
