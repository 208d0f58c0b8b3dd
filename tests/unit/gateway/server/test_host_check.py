"""Names under which a gateway without keys is served: this host's own and those that the operator lists."""

import pytest

from gateway.api.errors import Misdirected
from gateway.server.host_check import HostCheck

OWN = [
    b"localhost",
    b"LocalHost:8000",
    b"localhost.",
    b"127.0.0.1:80",
    b"127.1.2.3",
    b"[::1]",
    b"[0:0:0:0:0:0:0:1]:8000",
]
FOREIGN = [
    b"evil.example",
    b"localhost.evil.example:8000",
    b"evil.localhost.example",
    b"10.0.0.9",
    b"[fe80::1]",
    b"",
]


def serves(hosts: HostCheck, host: bytes) -> bool:
    try:
        hosts.check([(b"accept", b"*/*"), (b"host", host)])
    except Misdirected:
        return False
    return True


def hosts(bind: str = "127.0.0.1", *allowed: str, is_open: bool = False, has_keys: bool = False) -> HostCheck:
    return HostCheck(bind, allowed, is_open=is_open, has_keys=has_keys)


@pytest.mark.parametrize("host", OWN)
def test_this_hosts_own_names_are_served(host: bytes) -> None:
    """With and without a port, in any case, with a dot at the end."""
    assert serves(hosts(), host)


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_not(host: bytes) -> None:
    """Nor those that only look like a name of this host; a list adds to the names and opens no others."""
    assert not serves(hosts(), host)
    assert not serves(hosts("127.0.0.1", "node-7.example"), host)


@pytest.mark.parametrize("host", [b"node-7.example", b"NODE-7.Example.:8000", b"gateway:8000"])
def test_listed_names_are_served(host: bytes) -> None:
    """Whatever port and spelling a client uses."""
    assert serves(hosts("127.0.0.1", "Node-7.example", "gateway"), host)


def test_the_bind_address_is_served() -> None:
    """Under it clients reach the gateway."""
    assert serves(hosts("10.0.0.9", is_open=True), b"10.0.0.9:8000")
    assert serves(hosts("fe80::1", is_open=True), b"[fe80::1]:8000")


def test_an_open_gateway_is_served_under_any_address_and_no_foreign_name() -> None:
    """A page whose name leads here sends that name, never an address."""
    assert serves(hosts("0.0.0.0", is_open=True), b"192.0.2.7:8000")
    assert not serves(hosts("0.0.0.0", is_open=True), b"evil.example")


@pytest.mark.parametrize("host", FOREIGN)
def test_with_keys_or_a_star_every_name_is_served(host: bytes) -> None:
    """A page does not know a key; a star is the operator's word."""
    assert serves(hosts(has_keys=True), host)
    assert serves(hosts("127.0.0.1", "*"), host)


def test_a_request_without_a_host_comes_from_no_browser() -> None:
    """HTTP/1.0 knows requests without one."""
    hosts().check([])
