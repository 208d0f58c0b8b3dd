"""Under which names the gateway is served without keys.

A page in a browser on this host may have a name of its own resolve to this host (DNS rebinding), and would then talk to
the models as if they were its own server. Its requests still carry that name in `Host`, by which they are known.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from gateway.api.errors import Misdirected
from gateway.http.headers import get

EVERY: Final = b"*"
MAX_SPELLINGS: Final = 64  # that are kept


class HostCheck:
    """The names that are served: this host's own, and those that the operator lists.

    bind: the address under which clients reach the gateway; is_open: whoever reaches it may use it, under any address
    but not under any name; has_keys: a page does not know them, so that names do not matter.
    """

    def __init__(self, bind: str, allowed: Iterable[str], *, is_open: bool, has_keys: bool) -> None:
        names = frozenset(name_of(host.encode()) for host in ("localhost", bracketed(bind), *allowed))
        self._serves_all = has_keys or EVERY in names
        self._is_open = is_open
        self._names = names
        self._served: set[bytes] = set()  # as clients spell them, port and all

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raises Misdirected for a request to another name. One of HTTP/1.0 without a host comes from no browser."""
        if self._serves_all:
            return
        host = get(headers, b"host")
        if host is None or host in self._served:
            return
        name = name_of(host)
        if name not in self._names and not self._is_our_address(name):
            raise Misdirected(
                f"The gateway is not served under the name {name[:80].decode('latin-1')!r}; if clients reach it by "
                "that name, add it to GATEWAY_ALLOWED_HOSTS"
            )
        if len(self._served) < MAX_SPELLINGS:
            self._served.add(host)

    def _is_our_address(self, name: bytes) -> bool:
        try:
            address = ip_address(name.strip(b"[]").decode("latin-1"))
        except ValueError:
            return False
        return address.is_loopback or self._is_open


def name_of(host: bytes) -> bytes:
    """A `Host` header's value without its port, in lower case and without a dot at its end."""
    colon = host.rfind(b":")
    if colon > host.rfind(b"]"):
        host = host[:colon]
    return host.lower().removesuffix(b".")


def bracketed(address: str) -> str:
    """An address as URLs have it."""
    return f"[{address}]" if ":" in address else address
