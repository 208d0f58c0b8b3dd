"""Refuse requests whose `Host` header is a name that the gateway is not served under, if there are no API keys.

A web page can have its own name resolve to this host (DNS rebinding), and its scripts could then use the models as if
these were the page's own server. Their requests still carry the page's name in `Host`."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from gateway.api.errors import Misdirected
from gateway.http.headers import get

EVERY: Final = b"*"  # in the operator's list: any name
MAX_SPELLINGS: Final = 64  # accepted values of `Host` that are remembered; clients may vary them without end


class HostCheck:
    """The accepted names: localhost, the bind address and the operator's list. bind: where clients reach the data port;
    is_open: every IP address is accepted, not only loopback; has_keys: every name is accepted, since API keys are
    required and a web page does not know them. `Gateway` has it check each request."""

    def __init__(self, bind: str, allowed: Iterable[str], *, is_open: bool, has_keys: bool) -> None:
        names = frozenset(name_of(host.encode()) for host in ("localhost", bracketed(bind), *allowed))
        self._serves_all = has_keys or EVERY in names
        self._is_open = is_open
        self._names = names
        self._served: set[bytes] = set()  # `Host` values that were accepted, with their port: a cache

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise Misdirected if `Host` is not accepted. Requests without `Host` come from no browser, and may pass."""
        if self._serves_all:
            return
        host = get(headers, b"host")
        if host is None or host in self._served:
            return
        name = name_of(host)
        if name not in self._names and not self._is_accepted_address(name):
            raise Misdirected(
                f"The gateway is not served under the name {name[:80].decode('latin-1')!r}; if clients reach it by "
                "that name, add it to GATEWAY_ALLOWED_HOSTS"
            )
        if len(self._served) < MAX_SPELLINGS:
            self._served.add(host)

    def _is_accepted_address(self, name: bytes) -> bool:
        """Whether `name` is an IP address that is accepted: a loopback one, or any if the gateway is open."""
        try:
            address = ip_address(name.strip(b"[]").decode("latin-1"))
        except ValueError:
            return False
        return address.is_loopback or self._is_open


def name_of(host: bytes) -> bytes:
    """Return a `Host` header's value in lower case, without its port and without a final dot."""
    colon = host.rfind(b":")
    if colon > host.rfind(b"]"):  # else it is in an IPv6 address
        host = host[:colon]
    return host.lower().removesuffix(b".")


def bracketed(address: str) -> str:
    """Return an IP address as URLs spell it: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address
