"""Request ids. A client's own is kept, so that its log and ours tell of the same request. A worker gets one that no
other request has, since vLLM takes two requests of one id for the same. Pure."""

import re
from typing import Final

from gateway.http.headers import Headers, get

CLIENTS: Final = re.compile(rb"[A-Za-z0-9._:=-]{1,128}")
TAIL: Final = 12  # hex digits of our own behind a client's id


def request_ids(headers: Headers, own: bytes) -> tuple[bytes, bytes]:
    """The id that client and log are told, and the one that the worker is sent: by the request's `x-request-id` if that
    is short and plain, else `own`."""
    given = get(headers, b"x-request-id")
    if given is None or CLIENTS.fullmatch(given) is None:
        return own, own
    return given, b"%b-%b" % (given, own[:TAIL])
