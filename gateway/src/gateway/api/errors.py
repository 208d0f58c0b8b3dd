"""Errors the gateway itself answers with, and their OpenAI shape.

    GatewayError
    ├── InvalidRequest       400  invalid_request       the request cannot be routed as it stands
    │   ├── RouteNotFound    404  invalid_request       no such path
    │   ├── ResponseNotFound 404  invalid_request       no worker has the stored response
    │   ├── MethodNotAllowed 405  invalid_request       with Allow
    │   ├── RequestTimeout   408  invalid_request       the client sent its request too slowly
    │   ├── UnsupportedCoding 415 invalid_request       with Accept-Encoding: the body's compression is not taken
    │   └── Misdirected      421  invalid_request       for a host name that is not served
    ├── InvalidApiKey        401  invalid_api_key
    ├── ModelNotFound        404  model_not_found       undeclared, or declared but not started
    ├── RequestTooLarge      413  request_too_large
    │   └── HeadTooLarge     431  request_too_large     more headers, or bytes of them, than are taken
    ├── BadWorkerResponse    502  bad_worker_response   its answer is not HTTP, or no stream as begun by a comment
    ├── WorkerDisconnected   502  upstream_disconnected the worker ended its answer early, or the gateway ends
    ├── ModelLoading         503  model_loading         with Retry-After
    ├── RateLimited          429  rate_limited          with Retry-After: one of the key's limits is reached for now
    ├── QuotaExceeded        429  insufficient_quota    the key's tokens of the month are used up
    ├── Overloaded           503  overloaded            with Retry-After: no room: bodies, sockets, or queued too long
    │   └── QueueFull        429  overloaded            with Retry-After: the queue is full
    ├── NoWorkerAvailable    503  no_worker_available   with Retry-After
    │   └── WorkerUnreachable                           nothing of the request reached the worker
    ├── WorkerTimeout        504  worker_timeout
    └── GatewayFault         500  gateway_error         a fault of the gateway's own; its log has the trace

Serialised in the route's dialect: OpenAI's error object, or Anthropic's.
A worker's own error is never turned into one of these: it passes through unchanged, but for `proxy/late_error.py`.
`ConfigError` is of another kind: the operator's input is wrong, and the process ends with exit code 2."""

import orjson

from gateway.api.routes import Dialect

ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 405: "invalid_request_error",
    408: "invalid_request_error", 413: "request_too_large", 415: "invalid_request_error",
    421: "invalid_request_error", 429: "rate_limit_error", 431: "request_too_large", 503: "overloaded_error",
    504: "timeout_error",
}  # fmt: skip


def anthropic_type(status: int) -> str:
    """Return Anthropic's error type for a status, for routes of that dialect. A new status needs a row in the table."""
    return ANTHROPIC_TYPES.get(status, "api_error")


class ConfigError(Exception):
    """The operator's input is wrong; the message says what, and what to do. Exit code 2."""


class NotNow(ConfigError):
    """The same, for a cause that may pass with the files as they are: one cannot be read, or is not valid yet."""


class PortInUse(Exception):
    """A listening port is taken; the message names the port and the remedy. Exit code 3."""


class GatewayError(Exception):
    """An error that the gateway itself answers with. `message` is for people, `code` is stable for programs."""

    status = 500
    code = "gateway_error"
    type: str = "server_error"
    retry_after_s: int | None = None

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def body(self, dialect: Dialect = Dialect.OPENAI) -> bytes:
        """Return the error object as JSON in the route's dialect: an answer's body, or the data of `sse_event`."""
        if dialect is Dialect.ANTHROPIC:
            kind = anthropic_type(self.status)
            return orjson.dumps({"type": "error", "error": {"type": kind, "message": self.message}})
        return orjson.dumps({"error": self._fields()})

    def sse_event(self, dialect: Dialect = Dialect.OPENAI) -> bytes:
        """Return the object of `body` as one server-sent event, for a stream that has already begun."""
        name = b"" if dialect is Dialect.OPENAI else b"event: error\n"
        return b"%bdata: %b\n\n" % (name, self.body(dialect))

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the response headers of this error; `x-gateway-error` tells the gateway's errors from a worker's."""
        extra = [(b"content-type", b"application/json"), (b"x-gateway-error", self.code.encode())]
        if self.retry_after_s is not None:
            extra.append((b"retry-after", str(self.retry_after_s).encode()))
        return extra

    def _fields(self) -> dict[str, str | None]:
        """Return the members of OpenAI's error object, which `body` writes."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


class InvalidRequest(GatewayError):
    status, code, type = 400, "invalid_request", "invalid_request_error"


class RouteNotFound(InvalidRequest):
    status = 404


class ResponseNotFound(InvalidRequest):
    status = 404


class MethodNotAllowed(InvalidRequest):
    """allow: the methods that the path takes, for the `Allow` header."""

    status = 405

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"allow", self.allow.encode())]


class Misdirected(InvalidRequest):
    status = 421


class UnsupportedCoding(InvalidRequest):
    """The body's Content-Encoding is not supported. taken: those that are, for `Accept-Encoding`."""

    status, taken = 415, "gzip, deflate, br, zstd"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"accept-encoding", self.taken.encode())]


class InvalidApiKey(GatewayError):
    status, code, type = 401, "invalid_api_key", "invalid_request_error"


class ModelNotFound(GatewayError):
    status, code, type = 404, "model_not_found", "invalid_request_error"


class RequestTooLarge(GatewayError):
    status, code, type = 413, "request_too_large", "invalid_request_error"


class HeadTooLarge(RequestTooLarge):
    status = 431


class RequestTimeout(InvalidRequest):
    status = 408


class RateLimited(GatewayError):
    """A limit of the request's API key is reached. kind: `requests` or `tokens`, as OpenAI has it in `type`; retry_ms:
    when the request would fit; limits: header lines that tell the key's limits, as `limits.limiter` writes them."""

    status, code = 429, "rate_limited"

    def __init__(
        self, message: str, param: str | None = None, *,
        kind: str = "requests", retry_ms: int = 1000, limits: bytes = b"",
    ) -> None:  # fmt: skip
        super().__init__(message, param)
        self.type = kind
        self.retry_after_s = max(1, -(-retry_ms // 1000))
        self.retry_after_ms = max(1, retry_ms)
        self.limits = limits

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers; OpenAI's and Anthropic's clients read `retry-after-ms` before `retry-after`."""
        lines = [line.partition(b": ") for line in self.limits.splitlines()]
        told = [(name, value) for name, _, value in lines]
        return [*super().headers(), (b"retry-after-ms", str(self.retry_after_ms).encode()), *told]


class QuotaExceeded(GatewayError):
    """The tokens that the request's API key has for the month do not suffice: a client that tries again is told no."""

    status, code, type = 429, "insufficient_quota", "insufficient_quota"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"x-should-retry", b"false")]


class Overloaded(GatewayError):
    status, code, retry_after_s = 503, "overloaded", 2


class QueueFull(Overloaded):
    status = 429


class BadWorkerResponse(GatewayError):
    status, code = 502, "bad_worker_response"


class WorkerDisconnected(GatewayError):
    status, code = 502, "upstream_disconnected"


class ModelLoading(GatewayError):
    status, code, retry_after_s = 503, "model_loading", 15


class NoWorkerAvailable(GatewayError):
    status, code, retry_after_s = 503, "no_worker_available", 5


class WorkerUnreachable(NoWorkerAvailable):
    """The connection to a worker could not be made, so nothing of the request reached it."""


class WorkerTimeout(GatewayError):
    """A worker was too slow. The answer tells OpenAI's clients not to retry: the engine is slow already."""

    status, code = 504, "worker_timeout"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"x-should-retry", b"false")]


class GatewayFault(GatewayError):
    """An unexpected error in the gateway's own code; neither the client nor a worker is to blame."""

    code = "gateway_error"

    def __init__(
        self, message: str = "The gateway failed at this request; its log says how", param: str | None = None
    ) -> None:
        super().__init__(message, param)
