"""Heads: what RFC 9112 allows is taken apart, all else is refused, and it does not matter how the bytes were cut."""

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.api.errors import GatewayError
from gateway.server.request_head import Head, HeadReader, decoded, is_plain, path_in

MAX, MAX_FIELDS = 2000, 64
LINE, HOST, END = b"POST /v1/x?a HTTP/1.1\r\n", b"Host: gateway:8000\r\n", b"\r\n"
RIGHT = {
    "plain": LINE + HOST + END,
    "one empty line before it": b"\r\n" + LINE + HOST + END,
    "HTTP/1.0 without a host": b"GET / HTTP/1.0\r\n\r\n",
    "HTTP/1.0 with one": b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    "an address": LINE + b"Host: [::1]:8000\r\n\r\n",
    "a host with an empty port": LINE + b"Host: a:\r\n\r\n",
    "white space around values": LINE + b"Host: \t a \t\r\nTransfer-Encoding:chunked \r\nX: \r\n\r\n",
    "other bytes in a value": LINE + HOST + b"X: \x80\xff\t!\r\n\r\n",
    "coding in capitals": LINE + HOST + b"TRANSFER-ENCODING: Chunked\r\n\r\n",
    "zeros before the length": LINE + HOST + b"Content-Length: 0005\r\n\r\n",
    "an endless length": LINE + HOST + b"Content-Length: " + b"9" * 1000 + b"\r\n\r\n",
    "another protocol offered": LINE + HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
    "an absolute target": b"GET http://gateway:8000/v1/x?a HTTP/1.1\r\n" + HOST + END,
    "a target of all": b"OPTIONS * HTTP/1.1\r\n" + HOST + END,
    "a method of its own": b"BREW / HTTP/1.1\r\n" + HOST + END,
    "what browsers leave as it is": b"GET /a|b?c[]={d}^` HTTP/1.1\r\n" + HOST + END,
    "as many fields as may be": LINE + HOST + b"x: y\r\n" * (MAX_FIELDS - 1) + END,
    "as long as it may be": LINE + HOST + b"x: " + b"y" * (MAX - len(LINE + HOST) - 7) + b"\r\n\r\n",
}
WRONG = {
    "HTTP/0.9": b"GET /\r\n\r\n",
    "no version": b"GET / \r\n" + HOST + END,
    "HTTP/1.2": LINE.replace(b"1.1", b"1.2") + HOST + END,
    "HTTP/2.0": LINE.replace(b"1.1", b"2.0") + HOST + END,
    "HTTP/1.10": LINE.replace(b"1.1", b"1.10") + HOST + END,
    "another protocol": LINE.replace(b"HTTP", b"RTSP") + HOST + END,
    "in small letters": LINE.replace(b"HTTP", b"http") + HOST + END,
    "HTTP/2's own beginning": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two spaces": LINE.replace(b" /", b"  /") + HOST + END,
    "a tab": LINE.replace(b" /", b"\t/") + HOST + END,
    "a space behind the version": LINE.replace(b"\r\n", b" \r\n") + HOST + END,
    "a space before it": b" " + LINE + HOST + END,
    "two empty lines before it": b"\r\n\r\n" + LINE + HOST + END,
    "a line feed before it": b"\n" + LINE + HOST + END,
    "a carriage return before it": b"\r" + LINE + HOST + END,
    "bare line feeds": (LINE + HOST + END).replace(b"\r\n", b"\n"),
    "one bare line feed": LINE + b"x: y\n" + HOST + END,
    "a bare carriage return": LINE + HOST + b"x: y\rz\r\n\r\n",
    "a zero": LINE + HOST + b"x: \x00\r\n\r\n",
    "a bell": LINE + HOST + b"x: \x07\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a folded field": LINE + HOST + b"x: y\r\n z\r\n\r\n",
    "a fold at once": LINE + b" x: y\r\n" + HOST + END,
    "a space before the colon": LINE + HOST + b"Content-Length : 5\r\n\r\n",
    "a field without a name": LINE + HOST + b": 5\r\n\r\n",
    "a field without a colon": LINE + HOST + b"Content-Length\r\n\r\n",
    "a name with brackets": LINE + HOST + b"x[]: 5\r\n\r\n",
    "no host": LINE + END,
    "two hosts": LINE + HOST + HOST + END,
    "an empty host": LINE + b"Host: \r\n\r\n",
    "a list of hosts": LINE + b"Host: a, b\r\n\r\n",
    "a host with a path": LINE + b"Host: a/b\r\n\r\n",
    "a host with a user": LINE + b"Host: a@b\r\n\r\n",
    "two lengths": LINE + HOST + b"Content-Length: 5\r\ncontent-length: 5\r\n\r\n",
    "a list of lengths": LINE + HOST + b"Content-Length: 5, 5\r\n\r\n",
    "a signed length": LINE + HOST + b"Content-Length: +5\r\n\r\n",
    "no length": LINE + HOST + b"Content-Length:\r\n\r\n",
    "a hexadecimal length": LINE + HOST + b"Content-Length: 0x5\r\n\r\n",
    "digits of another script": LINE + HOST + "Content-Length: \u0665\r\n\r\n".encode(),
    "length and coding": LINE + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two codings": LINE + HOST + b"Transfer-Encoding: chunked\r\n" * 2 + END,
    "a list of codings": LINE + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "identity": LINE + HOST + b"Transfer-Encoding: identity\r\n\r\n",
    "a quoted coding": LINE + HOST + b'Transfer-Encoding: "chunked"\r\n\r\n',
    "a coding with a tab": LINE + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "a coding in HTTP/1.0": LINE.replace(b"1.1", b"1.0") + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
    "a tunnel": b"CONNECT gateway:8000 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "a tunnel by a path": b"CONNECT /v1/x HTTP/1.1\r\n" + HOST + END,
    "a relative target": b"GET v1/x HTTP/1.1\r\n" + HOST + END,
    "a fragment": b"GET /#a HTTP/1.1\r\n" + HOST + END,
    "a quote": b'GET /" HTTP/1.1\r\n' + HOST + END,
    "a target of all, for another method": b"GET * HTTP/1.1\r\n" + HOST + END,
    "another scheme": b"GET ftp://gateway:8000/ HTTP/1.1\r\n" + HOST + END,
    "another host in the target": b"GET http://other/v1/x HTTP/1.1\r\n" + HOST + END,
    "a user in the target": b"GET http://u@gateway:8000/ HTTP/1.1\r\n" + HOST + END,
}  # fmt: skip
TOO_LARGE = {
    "a long line": LINE.replace(b"?a", b"?" + b"a" * MAX) + HOST + END,
    "a long field": LINE + HOST + b"x: " + b"y" * MAX + b"\r\n\r\n",
    "one byte too many": LINE + HOST + b"x: " + b"y" * (MAX - len(LINE + HOST) - 6) + b"\r\n\r\n",
    "many fields": LINE + HOST + b"x: y\r\n" * MAX_FIELDS + END,
    "a field without an end": LINE + HOST + b"x: " + b"y" * MAX,
    "a line without an end": b"GET /" + b"y" * MAX,
    "a method without an end": b"G" * MAX + b"y",
}


def read(pieces: list[bytes]) -> tuple[Head | int, bytes]:
    """The head, or the status that refuses it, and what is behind it."""
    reader = HeadReader(MAX, MAX_FIELDS)
    for number, piece in enumerate(pieces):
        try:
            head = reader.feed(piece, 0)
        except GatewayError as error:
            return error.status, b""
        if head is not None:
            return head, piece[reader.end :] + b"".join(pieces[number + 1 :])
    return 0, b""


def told(head: Head | int) -> object:
    if isinstance(head, int):
        return head
    return head.method, head.target, head.http_1_0, head.fields, head.chunked, head.length, head.keep_alive


def every_cut(data: bytes) -> list[list[bytes]]:
    by_bytes = [data[at : at + 1] for at in range(len(data))]
    return [by_bytes, *([data[:at], data[at:]] for at in range(1, len(data), 1 + len(data) // 300))]


@pytest.mark.parametrize("data", RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_read(data: bytes) -> None:
    """In any pieces, and what is behind it is left."""
    head, rest = read([data + b"more"])
    assert isinstance(head, Head)
    assert rest == b"more"
    for pieces in every_cut(data + b"more"):
        again, rest = read(pieces)
        assert (told(again), rest) == (told(head), b"more")


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused(data: bytes) -> None:
    """With 400, in any pieces."""
    assert {read(pieces)[0] for pieces in [[data], *every_cut(data)]} == {400}


@pytest.mark.parametrize("data", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_is_too_large_is_refused(data: bytes) -> None:
    """With 431, in any pieces, and before its end has come."""
    assert {read(pieces)[0] for pieces in [[data], *every_cut(data)]} == {431}


@pytest.mark.parametrize(
    "data", [b"\x16", b" ", b"\n", b"GET\t", b"GET / HTTP/2.0\r\n", b"GET / HTTP/1.1\nHost"]
)
def test_what_cannot_become_a_head_is_not_waited_for(data: bytes) -> None:
    """Its end may never come."""
    assert read([data])[0] == 400


def test_an_empty_line_is_no_beginning() -> None:
    """A client may send one behind a body; no head has begun then."""
    reader = HeadReader(MAX, MAX_FIELDS)
    assert reader.feed(b"\r\n", 0) is None
    assert not reader.begun
    assert reader.feed(b"G", 0) is None
    assert reader.begun


PIECES = some.sampled_from(
    [b"GET", b"POST", b" ", b"/", b"*", b"http://a/", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b"Host:", b"a",
     b"Content-Length:", b"5", b",", b"Transfer-Encoding:", b"chunked", b"\t", b"\x00", b"x:", b"\xff", b"\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: a\r\n", b"Connection: close\r\n"]
)  # fmt: skip


@given(
    some.lists(PIECES | some.binary(max_size=4), max_size=14), some.lists(some.integers(0, 60), max_size=6)
)
def test_any_bytes(parts: list[bytes], cuts: list[int]) -> None:
    """What is read h11 reads too, and the same; and any cutting gives the same."""
    data = b"".join(parts)
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    head, rest = read([data])
    again, rest_again = read([data[a:b] for a, b in pairwise(at)])
    assert (told(again), rest_again) == (told(head), rest)
    if isinstance(head, Head):
        referee = h11.Connection(h11.SERVER)
        referee.receive_data(data.removeprefix(b"\r\n"))
        seen = referee.next_event()
        assert isinstance(seen, h11.Request)
        assert (seen.method, seen.target) == (head.method, head.target)
        assert [(name, value) for name, value in seen.headers] == [
            (name, value.lower() if name == b"transfer-encoding" else value) for name, value in head.fields
        ]


@pytest.mark.parametrize(
    ("value", "stays"),
    [
        (b"Connection: close", False),
        (b"Connection: x, CLOSE\t,y", False),
        (b"Connection: x\r\nConnection: close", False),
        (b"Connection: Upgrade, disclosed", True),
        (b"Connection: keep-alive", True),
        (b'Connection: "close"', True),
        (b"X: close", True),
    ],
)
def test_connection_is_a_list(value: bytes, stays: bool) -> None:
    """Of words, each as a whole."""
    head, _ = read([LINE + HOST + value + b"\r\n\r\n"])
    assert isinstance(head, Head)
    assert head.keep_alive == stays


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a?b", b"/a"),
        (b"http://gateway:8000/a?b", b"/a"),
        (b"HTTP://GATEWAY:8000?b", b"/"),
        (b"/a%2fb", b"/a%2fb"),
    ],
)
def test_a_targets_path(target: bytes, path: bytes) -> None:
    """As it was sent, without query and host."""
    head, _ = read([LINE.replace(b"/v1/x?a", target) + HOST + END])
    assert isinstance(head, Head)
    assert head.path == path


def test_a_decoded_path_goes_no_further_if_it_means_something_else() -> None:
    """No line end, space or question mark that was spelt in percents gets into another request's head."""
    assert is_plain(decoded(b"/v1%2Fresponses/a"))
    for path in (b"/a%0d%0ab", b"/a%20b", b"/a%3fb", b"/a%23", b"/a%2541", b"/%ff"):
        assert not is_plain(decoded(path))


@pytest.mark.parametrize(
    ("beginning", "path"), [(b"GET /a?b", b"/a"), (b"\r\nGET /a HTTP", b"/a"), (b"\x16\x03", b""), (b"", b"")]
)
def test_the_path_of_a_refused_head(beginning: bytes, path: bytes) -> None:
    """As far as there is one: it says in whose words the refusal is told."""
    assert path_in(beginning) == path
