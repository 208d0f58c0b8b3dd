"""Which values of HTTPS_PROXY and its like are proxies, and where one that is none matters."""

import os

import pytest

from model_cache.errors import ConfigError
from model_cache.settings import export_proxies
from model_cache.sources import proxies

HUB = "https://hub.invalid"
PASSWORD = "s3cr3t-of-the-proxy"
NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without proxies."""
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("proxy.corp:3128", "http://proxy.corp:3128"),
        ("socks-like.corp:3128", "http://socks-like.corp:3128"),
        ("proxy.corp", "http://proxy.corp"),
        (" proxy.corp:3128 ", "http://proxy.corp:3128"),
        ("//proxy.corp:3128", "http://proxy.corp:3128"),
        (f"user:{PASSWORD}@proxy.corp:3128", "http://proxy.corp:3128"),
        ("http://proxy.corp:3128/", "http://proxy.corp:3128"),
        ("https://proxy.corp", "https://proxy.corp"),
    ],
)
def test_what_is_a_proxy(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str) -> None:
    """Without a scheme it is one that speaks HTTP."""
    monkeypatch.setenv(variable, value)
    export_proxies()

    proxies.require_usable([HUB])
    assert proxies.shown(HUB) == named


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "value",
    [
        f"proxy:{PASSWORD}",
        f"u:{PASSWORD}@[::1",
        f"ftp://u:{PASSWORD}@h",
        f"http://u:{PASSWORD}@h:99999",
        f"http://u:{PASSWORD}@h:0",
        f"http://u:{PASSWORD}@",
        f"socks5://u:{PASSWORD}@h:1080",
        f"SOCKS5h://u:{PASSWORD}@h:1080",
        f"socks4://u:{PASSWORD}@h",
    ],
)
def test_what_is_none(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """Said with the variable, the hub and the form, without the value; that SOCKS is not supported, as such."""
    monkeypatch.setenv(variable, value)
    export_proxies()

    with pytest.raises(ConfigError, match=r"HTTPS_PROXY .*https://hub\.invalid.*give http://") as caught:
        proxies.require_usable([HUB])
    assert PASSWORD not in str(caught.value)
    assert ("not supported" in str(caught.value)) == ("socks" in value.lower())


def test_what_is_not_used_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy for another scheme, for everything that has none of its own, and for a host that goes without."""
    monkeypatch.setenv("HTTP_PROXY", "socks5://h:1080")
    proxies.require_usable([HUB])
    monkeypatch.setenv("ALL_PROXY", "socks5://h:1080")
    monkeypatch.setenv("HTTPS_PROXY", "http://h:3128")
    proxies.require_usable([HUB])
    monkeypatch.setenv("NO_PROXY", "hub.invalid")
    proxies.require_usable([HUB, "http://hub.invalid"])


def test_what_is_unset_stays_so() -> None:
    """Nothing is made of nothing."""
    before = dict(os.environ)
    export_proxies()
    assert dict(os.environ) == before
