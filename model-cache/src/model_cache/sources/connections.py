"""Connections to a source as requests makes them, with three additions: a deadline for a response's head, a count of
every byte that arrives, and the operator's own CA beside the usual ones."""
# ruff: noqa: ANN401 - what requests and urllib3 hand to each other has no types of its own

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.ssl_ import create_urllib3_context

_HEAD_S = 120.0  # for a complete head, however slowly it arrives
_MAX_CONNECTIONS = 32  # kept open for more requests; a download uses sixteen at once

Count = Callable[[int], None]
"""Called with the number of bytes that arrived; what it raises ends the transfer."""


class Adapter(HTTPAdapter):
    """Makes the connections of a `Session`, which mounts it; requests calls its public methods."""

    def __init__(self, count: Count, ca_file: Path | None) -> None:
        self._count = count
        self._ca_file = ca_file
        super().__init__(pool_maxsize=_MAX_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools of connections without a proxy, with CA and deadline; HTTPAdapter.__init__ calls it, once."""
        super().init_poolmanager(*args, **kwargs | self._trust())
        _limit_heads(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        """Return the pools of connections through *proxy*, likewise; requests calls it for each request."""
        manager = super().proxy_manager_for(proxy, **kwargs | self._trust())
        _limit_heads(manager)
        return manager

    def _trust(self) -> dict[str, Any]:
        """Return urllib3's arguments for the operator's CA, or none; HTTPAdapter.cert_verify adds the usual CAs."""
        if self._ca_file is None:
            return {}
        context = create_urllib3_context()
        context.load_verify_locations(self._ca_file)
        return {"ssl_context": context}

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """Return the response to *req* once its head has arrived, with a body that is counted as it is read."""
        response = super().build_response(req, resp)
        response.raw = _Counted(response.raw, self._count)
        return response


class _Counted:
    """A urllib3 response whose bytes are counted as they are read."""

    def __init__(self, raw: Any, count: Count) -> None:
        self._raw = raw
        self._count = count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def read1(self, *args: Any, **kwargs: Any) -> bytes:
        """Read and count what is there: `session.chunks` and the SDK's downloads call it, without waiting for more."""
        data: bytes = self._raw.read1(*args, **kwargs)
        self._count(len(data))
        return data

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        """Yield and count the body where requests reads it by itself: `Response.content`, as of a redirect."""
        for data in self._raw.stream(*args, **kwargs):
            self._count(len(data))
            yield data


class _Limited:
    """A base that `_limited` adds to urllib3's connections: _HEAD_S for a head, the proxy's or the response's."""

    def getresponse(self) -> Any:
        """Wait for the head of a response; urllib3's pools call it after each request."""
        with _ended_after(_HEAD_S, self):
            return super().getresponse()  # type: ignore[misc]

    def _tunnel(self) -> Any:
        """Wait for the proxy's answer to CONNECT; urllib3 calls it for HTTPS through a proxy."""
        with _ended_after(_HEAD_S, self):
            return super()._tunnel()  # type: ignore[misc]


@contextlib.contextmanager
def _ended_after(seconds: float, connection: Any) -> Iterator[None]:
    """Shut the connection down after *seconds*, in a timer thread: a socket's timeout starts anew with each byte."""
    timer = threading.Timer(seconds, _shut_down, [connection.sock])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut_down(sock: Any) -> None:
    """Shut the socket down in the timer's thread, so that the thread that reads from it gets an error; do nothing if it
    is closed (OSError) or was never opened (None, which has no such attribute)."""
    with contextlib.suppress(OSError, AttributeError):
        sock.shutdown(socket.SHUT_RDWR)


def _limit_heads(manager: Any) -> None:
    """Give the connections of this manager's pools a deadline for heads, in a copy of urllib3's global table."""
    manager.pool_classes_by_scheme = {
        scheme: _limited(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _limited(pool: type) -> type:
    """Return the pool class with limited connections; *pool* if it has them: requests asks for a proxy's again."""
    connection = pool.ConnectionCls  # type: ignore[attr-defined]
    if issubclass(connection, _Limited):
        return pool
    return type(pool.__name__, (pool,), {"ConnectionCls": type("Limited", (_Limited, connection), {})})
