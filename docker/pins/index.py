"""The nightly index: <index>/<commit or version>/[variant/]<distribution>/index.html, and metadata.json beside it.

Links may be relative and escape `+` as %2B. A hash is declared by a link's `#sha256=` or by metadata.json, if at all.
"""

import json
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import httpx

from pins.errors import NoAnswerError, NoWheelError

DEFAULT = "https://wheels.vllm.ai"


@dataclass(frozen=True)
class Link:
    """A file that an index offers; `sha256` is empty where the index declares none."""

    file: str
    url: str
    sha256: str


class _Anchors(HTMLParser):
    """Collects the addresses of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs += [value for name, value in attrs if tag == "a" and name == "href" and value]


def client(timeout_s: float = 60.0) -> httpx.Client:
    """A client that waits at most `timeout_s` for the next byte, and 10 s for a connection."""
    return httpx.Client(follow_redirects=True, timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)))


def page(index: str, folder: str, variant: str, distribution: str) -> str:
    """The address of the directory that lists a distribution's wheels; an empty variant is the default one."""
    return "/".join(part for part in (index.rstrip("/"), folder, variant, distribution) if part) + "/"


def listing(http: httpx.Client, address: str) -> list[Link]:
    """The wheels that the page at `address` links to. Raises NoWheelError if there are none, NoAnswerError."""
    answer = _ask(http, "GET", urljoin(address, "index.html"))
    links = parse(str(answer.url), answer.text) if answer.is_success else []
    if not links:
        raise NoWheelError(
            f"{address} lists no wheel (HTTP {answer.status_code}): is that build published there?"
        )
    declared = _declared(_ask(http, "GET", urljoin(address, "metadata.json")))
    return [replace(link, sha256=link.sha256 or declared.get(link.file, "")) for link in links]


def parse(address: str, html: str) -> list[Link]:
    """The links of a page that lead to wheels, with their addresses made absolute."""
    anchors = _Anchors()
    anchors.feed(html)
    links = [_link(urljoin(address, href)) for href in anchors.hrefs]
    return [link for link in links if link.file.endswith(".whl")]


def _link(url: str) -> Link:
    address, fragment = urldefrag(url)
    declared = re.fullmatch(r"sha256=([0-9A-Fa-f]{64})", fragment)
    file = unquote(urlsplit(address).path).rpartition("/")[2]
    return Link(file, address, declared[1].lower() if declared else "")


def _declared(answer: httpx.Response) -> dict[str, str]:
    """The sha256 of each file for which metadata.json, a list of facts about files, has one."""
    try:
        entries = answer.json() if answer.is_success else []
    except json.JSONDecodeError:
        entries = []
    facts = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return {str(entry.get("filename")): str(entry["sha256"]).lower() for entry in facts if "sha256" in entry}


def download(http: httpx.Client, link: Link, directory: Path) -> Path:
    """Puts the file that `link` leads to into `directory`. Raises NoWheelError, NoAnswerError."""
    path = directory / link.file
    try:
        with http.stream("GET", link.url) as answer, path.open("wb") as stream:
            if not answer.is_success:
                raise NoWheelError(
                    f"{link.url} answers {answer.status_code}: the index lists it and does not have it"
                )
            for block in answer.iter_bytes():
                stream.write(block)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswerError(f"{link.url} broke off: {error}") from error
    return path


def has(http: httpx.Client, link: Link) -> bool:
    """Whether the file itself is still there. Raises NoAnswerError."""
    return _ask(http, "HEAD", link.url).is_success


def _ask(http: httpx.Client, method: str, url: str) -> httpx.Response:
    try:
        answer = http.request(method, url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswerError(
            f"{url} does not answer ({error}): VLLM_WHEEL_INDEX names the index to ask"
        ) from error
    if answer.is_server_error:
        raise NoAnswerError(f"{url} answers {answer.status_code}: try again later")
    return answer
