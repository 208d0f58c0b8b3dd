"""CORS: web pages of the origins that the operator lists may read answers; by default none may. Pure."""

from collections.abc import Iterable
from typing import Final

from gateway.http.headers import Headers, get

ANY: Final = b"*"
# Headers that pages may read.
EXPOSED: Final = (
    b"x-request-id, x-gateway-error, retry-after, retry-after-ms, x-should-retry, x-ratelimit-limit-requests, "
    b"x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
    b"x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
MAX_AGE_S: Final = 600  # seconds that a browser may cache a preflight's answer


class Cors:
    """The allowed origins, and the header lines that follow from them. allowed: origins, or "*" for any."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def fields(self, headers: Headers) -> bytes:
        """Return the CORS lines that any answer to a request with `headers` gets; b"" if no origin is allowed."""
        if not self._allowed:
            return b""
        if ANY in self._allowed:
            return readable_by(ANY)
        origin = get(headers, b"origin")
        shown = readable_by(origin) if origin is not None and origin in self._allowed else b""
        return b"vary: origin\r\n" + shown

    def is_preflight(self, method: bytes, headers: Headers) -> bool:
        """Whether this is a browser's preflight from an allowed origin. Browsers send no API key with it."""
        if method != b"OPTIONS" or get(headers, b"access-control-request-method") is None:
            return False
        return bool(self._allowed) and (ANY in self._allowed or get(headers, b"origin") in self._allowed)


def readable_by(origin: bytes) -> bytes:
    """Return the header lines that let pages of `origin` read an answer and its EXPOSED headers."""
    return b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\n" % (origin, EXPOSED)


def preflight_headers(headers: Headers) -> dict[str, str]:
    """Return the headers with which `control.api` answers a preflight: the methods, and all headers asked for."""
    wanted = get(headers, b"access-control-request-headers") or b""
    return {
        "access-control-allow-methods": "GET, HEAD, POST",
        "access-control-allow-headers": wanted.decode("latin-1"),
        "access-control-max-age": str(MAX_AGE_S),
        "vary": "access-control-request-headers",
    }
