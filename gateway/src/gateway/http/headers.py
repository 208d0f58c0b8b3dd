"""Which headers travel, both ways, and the request head sent to a worker. Pure.

Towards the worker the list is of what may pass: nothing of the client's connection, identity or keys reaches a worker.
Towards the client it is of what may not: hop-by-hop fields, those that `Connection` names, and what we add.
"""

from collections.abc import Iterable
from typing import Final

Headers = list[tuple[bytes, bytes]]

TO_WORKER: Final = frozenset({b"content-type", b"accept", b"traceparent", b"tracestate"})
STREAM: Final = ((b"content-type", b"text/event-stream; charset=utf-8"),)
NOT_TO_CLIENT: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer",
     b"transfer-encoding", b"upgrade", b"server", b"date", b"x-request-id", b"cache-control", b"x-accel-buffering"}
)  # fmt: skip


def get(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """The first value of the header named `wanted` (lower case), or None."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


def request_head(
    method: bytes, target: bytes, host: bytes, client_headers: Headers, length: int, request_id: bytes
) -> bytes:
    """The head of a request to a worker with a body of `length` bytes, framed anew."""
    parts = [method, b" ", target, b" HTTP/1.1\r\nhost: ", host]
    for name, value in client_headers:
        if name in TO_WORKER:
            parts += (b"\r\n", name, b": ", value)
    parts.append(b"\r\nx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (request_id, length))
    return b"".join(parts)


def with_length(headers: Headers, length: int) -> Headers:
    """The headers, for a body of `length` bytes."""
    return [*without_length(headers), (b"content-length", b"%d" % length)]


def without_length(headers: Headers) -> Headers:
    """The headers, for a body of which the length is not known."""
    return [field for field in headers if field[0] != b"content-length"]


def response_headers(worker_headers: Headers, request_id: bytes) -> Headers:
    """The worker's headers as the client gets them, with our request id and no caching or buffering on the way."""
    kept = [field for field in worker_headers if field[0] not in NOT_TO_CLIENT]
    if len(kept) != len(worker_headers) and (named := _named_by_connection(worker_headers)):
        kept = [field for field in kept if field[0] not in named]
    kept += ours(request_id)
    return kept


def ours(request_id: bytes) -> Headers:
    """The headers every response of the gateway's data path carries."""
    return [(b"x-request-id", request_id), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    fields = (value for name, value in headers if name == b"connection")
    return frozenset(token.strip().lower() for value in fields for token in value.split(b","))
