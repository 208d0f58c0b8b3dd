"""Which web pages may read answers (CORS): those of the origins that the operator lists, none by default. Pure."""

from collections.abc import Iterable
from typing import Final

from gateway.http.headers import Headers, get

ANY: Final = b"*"
EXPOSED: Final = b"x-request-id, x-gateway-error, retry-after, x-should-retry"
MAX_AGE_S: Final = 600  # that a browser keeps what a preflight told


class Cors:
    """The origins of the pages that may read answers."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def fields(self, headers: Headers) -> bytes:
        """Header lines of every answer to a request with these headers, errors and streams among them."""
        if not self._allowed:
            return b""
        if ANY in self._allowed:
            return readable_by(ANY)
        origin = get(headers, b"origin")
        shown = readable_by(origin) if origin is not None and origin in self._allowed else b""
        return b"vary: origin\r\n" + shown

    def is_preflight(self, method: bytes, headers: Headers) -> bool:
        """Whether a browser asks if a page's request may be sent. It brings no key."""
        if method != b"OPTIONS" or get(headers, b"access-control-request-method") is None:
            return False
        return bool(self._allowed) and (ANY in self._allowed or get(headers, b"origin") in self._allowed)


def readable_by(origin: bytes) -> bytes:
    return b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\n" % (origin, EXPOSED)


def permission(headers: Headers) -> dict[str, str]:
    """What a preflight is answered: the gateway's methods, and whatever headers the page wants to send."""
    wanted = get(headers, b"access-control-request-headers") or b""
    return {
        "access-control-allow-methods": "GET, HEAD, POST",
        "access-control-allow-headers": wanted.decode("latin-1"),
        "access-control-max-age": str(MAX_AGE_S),
        "vary": "access-control-request-headers",
    }
