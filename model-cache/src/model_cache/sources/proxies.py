"""The proxies that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name, checked, and shown without their passwords."""

from collections.abc import Iterable
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies, select_proxy

from model_cache.errors import ConfigError

_FORM = "give http://[user:password@]host[:port]"


def shown(url: str) -> str | None:
    """Return the proxy for *url* for a message: scheme, host and port, without its password; None if there is none."""
    proxy = _proxy_for(url)
    if not proxy:
        return None
    parts = urlsplit(proxy)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def require_usable(urls: Iterable[str]) -> None:
    """Raise ConfigError if the proxy for one of *urls* cannot be used: a request would be retried for minutes."""
    for url in urls:
        if fault := _fault(_proxy_for(url) or ""):
            variable = f"{urlsplit(url).scheme.upper()}_PROXY"
            raise ConfigError(f"{variable} (or ALL_PROXY), the proxy on the way to {url}: {fault}")


def _proxy_for(url: str) -> str | None:
    """Return the proxy that requests will take for *url* by the environment; None if it takes none."""
    return select_proxy(url, get_environ_proxies(url))


def _fault(proxy: str) -> str | None:
    """Return why the proxy cannot be used, without its value, which may hold a password; None if it can."""
    if not proxy:
        return None
    try:
        parts = urlsplit(proxy)
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:  # `port` raises it too
        return f"it is no address of a proxy: {_FORM}"
    if parts.scheme.startswith("socks"):
        return f"SOCKS proxies ({parts.scheme}://) are not supported: {_FORM}, or unset it"
    if parts.scheme not in ("http", "https") or not is_address:
        return f"it is no address of a proxy: {_FORM}"
    return None


def problem(error: BaseException, url: str) -> str:
    """Return why a request to *url* failed, for the line about its retry: the proxy, the certificates or the cause."""
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy {shown(url)}, as HTTPS_PROXY or HTTP_PROXY says, fails: {cause(error)},"
    if isinstance(error, requests.exceptions.SSLError):
        return f"{cause(error)} (a CA of your own goes into MODEL_CACHE_CA_FILE)"
    return cause(error)


def cause(error: BaseException) -> str:
    """Return the innermost cause, cut for a line: ``Connection refused``, rather than five layers of libraries."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
