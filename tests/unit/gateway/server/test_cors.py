"""CORS: pages of the listed origins may read answers, and no others."""

import pytest

from gateway.server.cors import Cors

PAGE = [(b"host", b"a"), (b"origin", b"https://app.example")]
ASKED = (b"access-control-request-method", b"POST")
LISTED = Cors(["http://localhost:3000", "https://app.example"])
OTHERS = [
    b"https://evil.example",
    b"https://app.example.evil",
    b"http://app.example",
    b"https://app.example:8443",
    b"null",
]


def test_by_default_nothing_is_said() -> None:
    """Answers are what they were, and a preflight is a request like any other."""
    assert Cors([]).fields(PAGE) == b""
    assert not Cors([]).is_preflight(b"OPTIONS", [*PAGE, ASKED])


def test_a_page_of_a_listed_origin_may_read() -> None:
    """Its own origin is answered, the headers that it may see are named, and caches are told that origins differ."""
    lines = LISTED.fields(PAGE).split(b"\r\n")
    assert lines[:2] == [b"vary: origin", b"access-control-allow-origin: https://app.example"]
    assert lines[2].startswith(b"access-control-expose-headers: ")
    assert {b"x-request-id", b"retry-after"} <= set(lines[2].partition(b": ")[2].split(b", "))
    assert lines[3:] == [b""]


@pytest.mark.parametrize("origin", OTHERS)
def test_a_page_of_another_origin_may_not(origin: bytes) -> None:
    """It is told nothing; caches still are."""
    headers = [(b"origin", origin), ASKED]
    assert LISTED.fields(headers) == LISTED.fields([]) == b"vary: origin\r\n"
    assert not LISTED.is_preflight(b"OPTIONS", headers)


@pytest.mark.parametrize("headers", [[], PAGE, [(b"origin", b"https://evil.example")]])
def test_a_star_is_any_page(headers: list[tuple[bytes, bytes]]) -> None:
    """The same for all, so that caches need not tell them apart."""
    anybody = Cors(["*"])
    assert anybody.fields(headers).startswith(b"access-control-allow-origin: *\r\n")
    assert anybody.is_preflight(b"OPTIONS", [*headers, ASKED])


def test_only_a_browsers_question_is_a_preflight() -> None:
    """An OPTIONS that asks for no method, or any other method, is a request like any other."""
    assert LISTED.is_preflight(b"OPTIONS", [*PAGE, ASKED])
    assert not LISTED.is_preflight(b"OPTIONS", PAGE)
    assert not LISTED.is_preflight(b"POST", [*PAGE, ASKED])
