"""A worker's head: what the grammar allows, how its body is framed, and nothing else."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.http.framing import BadFraming, Chunked, Sized, UntilClose
from gateway.upstream.response_head import MAX_HEAD_BYTES, check_beginning, read_response_head

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("head", "framing", "keeps"),
    [
        (OK + b"content-length: 3\r\n\r\n", Sized, True),
        (OK + b"Content-Length:3 \r\nCONTENT-LENGTH: 3\r\n\r\n", Sized, True),
        (OK + b"transfer-encoding: Chunked\r\nconnection: keep-alive\r\n\r\n", Chunked, True),
        (OK + b"transfer-encoding: chunked\r\nconnection: x, Close\r\n\r\n", Chunked, False),
        (OK + b"connection: disclosed\r\n\r\n", UntilClose, True),
        (b"HTTP/1.1 200\r\n\r\n", UntilClose, True),
        (b"HTTP/1.1 204 \r\ntransfer-encoding: chunked\r\n\r\n", Sized, True),
        (b"HTTP/1.1 304 No\r\ncontent-length: 9\r\n\r\n", Sized, True),
    ],
)
def test_how_a_body_is_framed(head: bytes, framing: type, keeps: bool) -> None:
    """By its length, in chunks, or by the connection's end; a status without a body has none, whatever it says."""
    reply = read_response_head(head)
    assert (type(reply.framing), reply.keep_alive) == (framing, keeps)


WRONG = [
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 600 OK\r\n\r\n",
    b"HTTP/1.1 200 O\x00K\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n",
    OK + b"a : b\r\n\r\n",
    OK + b"a: b\r\n c\r\n\r\n",
    OK + b"a: b\nc: d\r\n\r\n",
    OK + b": b\r\n\r\n",
    OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\n",
    OK + b"content-length: 3, 3\r\n\r\n",
    OK + b"content-length: +3\r\n\r\n",
    OK + b"content-length: \r\n\r\n",
    OK + b"content-length: " + b"9" * 19 + b"\r\n\r\n",
    OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
    OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    OK + b"a: " + b"b" * MAX_HEAD_BYTES + b"\r\n\r\n",
]


@pytest.mark.parametrize("head", WRONG, ids=lambda head: repr(head[:50]))
def test_what_is_refused(head: bytes) -> None:
    """It is no HTTP/1.1, or two readers could read it differently."""
    with pytest.raises(BadFraming):
        read_response_head(head)


def test_a_beginning() -> None:
    """Is waited for as long as it can become a head."""
    for at in range(len(OK)):
        check_beginning(OK[:at])
    for wrong in (b"SSH-", b"HTTP/1.0", b"HTTP/1.1 " + b"2" * MAX_HEAD_BYTES):
        with pytest.raises(BadFraming):
            check_beginning(wrong)


LINES = some.lists(
    some.sampled_from([b"a: b", b"content-length: 3", b"transfer-encoding: chunked", b"connection: close"])
    | some.binary(max_size=12),
    max_size=4,
)


@given(
    some.sampled_from([OK, b"HTTP/1.1 204 \r\n", b"HTTP/1.1 404 x\xff\r\n"]) | some.binary(max_size=20), LINES
)
def test_what_is_taken_h11_takes_too(first: bytes, lines: list[bytes]) -> None:
    """The referee reads the same status and fields, white space around values aside."""
    head = b"".join([first, *(line + b"\r\n" for line in lines), b"\r\n"])
    if head.find(b"\r\n\r\n") + 4 != len(head):
        return
    try:
        reply = read_response_head(head)
    except BadFraming:
        return
    referee = h11.Connection(h11.CLIENT)
    referee.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    referee.send(h11.EndOfMessage())
    referee.receive_data(head)
    event = referee.next_event()
    assert isinstance(event, h11.Response | h11.InformationalResponse)
    assert event.status_code == reply.status
    framing = (b"content-length", b"transfer-encoding")
    assert [one for one in event.headers if one[0] not in framing] == [
        one for one in reply.fields if one[0] not in framing
    ]
