"""The proxies that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name, as they may be spoken of: never with their passwords."""

from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies, select_proxy


def of(url: str) -> str | None:
    """The proxy on the way to *url*, as scheme, host and port alone; None where there is none."""
    proxy = select_proxy(url, get_environ_proxies(url))
    if not proxy:
        return None
    parts = urlsplit(proxy)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def problem(error: BaseException, url: str) -> str:
    """What went wrong on the way to *url*, and with whom."""
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy {of(url)}, as HTTPS_PROXY or HTTP_PROXY says, fails: {cause(error)},"
    if isinstance(error, requests.exceptions.SSLError):
        return f"{cause(error)} (a CA of your own goes into MODEL_CACHE_CA_FILE)"
    return cause(error)


def cause(error: BaseException) -> str:
    """What went wrong at the bottom: ``Connection refused``, rather than five layers of libraries."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
