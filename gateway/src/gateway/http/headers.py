"""Which headers are passed on between client and worker, and the request head sent to a worker. Pure.

To the worker only the listed headers pass, so that nothing of the client's connection, identity or keys reaches it.
To the client all pass but hop-by-hop headers, those that `Connection` names, and those that the gateway sets itself."""

from collections.abc import Iterable
from typing import Final

Headers = list[tuple[bytes, bytes]]  # (name in lower case, value)

TO_WORKER: Final = frozenset({b"content-type", b"accept", b"traceparent", b"tracestate"})
STREAM: Final = ((b"content-type", b"text/event-stream; charset=utf-8"),)  # of a stream that a comment begins
NOT_TO_CLIENT: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer",
     b"transfer-encoding", b"upgrade", b"server", b"date", b"x-request-id", b"cache-control", b"x-accel-buffering"}
)  # fmt: skip


def get(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """Return the first value of the header named `wanted` (lower case), or None."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


def request_head(
    method: bytes, target: bytes, host: bytes, client_headers: Headers, length: int, request_id: bytes,
    priority: int | None = None,
) -> bytes:  # fmt: skip
    """Return the head of a request to a worker: the client's headers that may pass, for a body of `length` bytes. host:
    the worker's; request_id: unique, since vLLM mixes up requests of one id (server/request_id.py); priority: at the
    engine; vLLM's routes that generate take it from a header rather than from the body."""
    parts = [method, b" ", target, b" HTTP/1.1\r\nhost: ", host]
    for name, value in client_headers:
        if name in TO_WORKER:
            parts += (b"\r\n", name, b": ", value)
    if priority is not None:
        parts.append(b"\r\nx-vllm-priority: %d" % priority)
    parts.append(b"\r\nx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (request_id, length))
    return b"".join(parts)


def with_length(headers: Headers, length: int) -> Headers:
    """Return `headers` with Content-Length set to `length` bytes: a response filter may have changed a whole body."""
    return [*without_length(headers), (b"content-length", b"%d" % length)]


def without_length(headers: Headers) -> Headers:
    """Return `headers` without Content-Length, for a stream: the relay may add comments or an error to it."""
    return [field for field in headers if field[0] != b"content-length"]


def response_headers(worker_headers: Headers, request_id: bytes) -> Headers:
    """Return the headers for the client: the worker's that may pass, then `ours`. `Relay` begins an answer so."""
    kept = [field for field in worker_headers if field[0] not in NOT_TO_CLIENT]
    if len(kept) != len(worker_headers) and (named := _named_by_connection(worker_headers)):
        kept = [field for field in kept if field[0] not in named]  # equal lengths: no `Connection`
    kept += ours(request_id)
    return kept


def ours(request_id: bytes) -> Headers:
    """Return the headers of every answer to a proxied request, errors too: its id, no caching, no buffering."""
    return [(b"x-request-id", request_id), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    """Return the lower-case names that `Connection` lists: these headers are for the worker's connection alone."""
    fields = (value for name, value in headers if name == b"connection")
    return frozenset(token.strip().lower() for value in fields for token in value.split(b","))
