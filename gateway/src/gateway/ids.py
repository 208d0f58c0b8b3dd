"""Request ids. A client's own is kept, so that its log and ours tell of the same request. A worker gets one that no
other request has, since vLLM takes two requests of one id for the same. Pure."""

import re
from typing import Final, NamedTuple

from gateway.headers import get

CLIENTS: Final = re.compile(rb"[A-Za-z0-9._:=-]{1,128}")
TAIL: Final = 12  # hex digits of our own behind a client's id
Headers = list[tuple[bytes, bytes]]


class RequestId(NamedTuple):
    """told: to the client and in the log; sent: to the worker."""

    told: bytes
    sent: bytes


def id_of(headers: Headers, own: bytes) -> RequestId:
    """The id of a request: what its `x-request-id` says if that is short and plain, else `own`."""
    given = get(headers, b"x-request-id")
    if given is None or CLIENTS.fullmatch(given) is None:
        return RequestId(own, own)
    return RequestId(given, b"%b-%b" % (given, own[:TAIL]))
