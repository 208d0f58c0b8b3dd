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
_MAX_CONNECTIONS = 32  # kept open for more requests

Count = Callable[[int], None]
"""Called with the number of bytes that arrived; what it raises ends the transfer."""


class Adapter(HTTPAdapter):
    """Makes connections with a deadline for heads, and responses whose bytes are counted."""

    def __init__(self, count: Count, ca_file: Path | None) -> None:
        self._count = count
        self._ca_file = ca_file
        super().__init__(pool_maxsize=_MAX_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs | self._trust())
        _limit_heads(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs | self._trust())
        _limit_heads(manager)
        return manager

    def _trust(self) -> dict[str, Any]:
        """Return urllib3's arguments for the operator's CA; requests adds the usual ones to the same context."""
        if self._ca_file is None:
            return {}
        context = create_urllib3_context()
        context.load_verify_locations(self._ca_file)
        return {"ssl_context": context}

    def build_response(self, req: Any, resp: Any) -> requests.Response:
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
        data: bytes = self._raw.read1(*args, **kwargs)
        self._count(len(data))
        return data

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        for data in self._raw.stream(*args, **kwargs):
            self._count(len(data))
            yield data


class _Limited:
    """A connection that has _HEAD_S for a head, the proxy's or the response's."""

    def getresponse(self) -> Any:
        with _ended_after(_HEAD_S, self):
            return super().getresponse()  # type: ignore[misc]

    def _tunnel(self) -> Any:
        with _ended_after(_HEAD_S, self):
            return super()._tunnel()  # type: ignore[misc]


@contextlib.contextmanager
def _ended_after(seconds: float, connection: Any) -> Iterator[None]:
    """Shut the connection down from a timer thread unless the block ends within *seconds*: a socket's own timeout
    starts anew with each byte."""
    timer = threading.Timer(seconds, _shut, [connection.sock])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(sock: Any) -> None:
    """Shut the socket down, so that the thread that reads from it gets an error; nothing if it is closed already."""
    with contextlib.suppress(OSError, AttributeError):
        sock.shutdown(socket.SHUT_RDWR)


def _limit_heads(manager: Any) -> None:
    """Give the connections of this manager's pools, and no others, a deadline for heads."""
    manager.pool_classes_by_scheme = {
        scheme: _limited(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _limited(pool: type) -> type:
    """Return the pool class with limited connections; *pool* if it has them, as requests reuses its managers."""
    connection = pool.ConnectionCls  # type: ignore[attr-defined]
    if issubclass(connection, _Limited):
        return pool
    return type(pool.__name__, (pool,), {"ConnectionCls": type("Limited", (_Limited, connection), {})})
