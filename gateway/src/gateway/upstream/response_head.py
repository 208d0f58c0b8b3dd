"""Parse the head of a worker's answer: it must match RFC 9112's grammar as a whole before it is split. Pure."""

import re
from typing import Final

from gateway.http.framing import TEXT, TOKEN, BadFraming, Chunked, Framing, Sized, UntilClose
from gateway.http.headers import Headers

END: Final = b"\r\n\r\n"
BEGINNING: Final = b"HTTP/1.1 "
MAX_HEAD_BYTES: Final = 64 * 1024  # of a worker's head
MAX_DIGITS: Final = 18  # digits of a Content-Length: it fits 64 bits
HEAD: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})(?: %b)?\r\n((?:%b:%b\r\n)*+)\r\n" % (TEXT, TOKEN, TEXT))
PAIR: Final = re.compile(rb"([^:\r]++):[\t ]*+([^\r]*+)\r\n")  # splits lines that match HEAD
WATCHED: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})
BODILESS: Final = (204, 304)  # statuses whose answers have no body
SWITCHING: Final = 101  # status Switching Protocols


class ResponseHead:
    """A parsed head. fields: headers with lower-case names, and values without white space around them."""

    def __init__(self, status: int, fields: Headers) -> None:
        """Raises BadFraming if the body's framing is ambiguous, or if the worker switches to another protocol."""
        if status == SWITCHING:
            raise BadFraming("it changes the protocol, which nobody has asked for")
        self.status = status
        self.fields = fields
        self.keep_alive = True
        length = coding = None
        for name, value in fields:
            if name not in WATCHED:
                continue
            if name == b"content-length":
                length = value if length is None or length == value else b"several"  # framing_of refuses it
            elif name == b"transfer-encoding":
                coding = value.lower() if coding is None else b"several"  # refused too
            elif says_close(value):
                self.keep_alive = False
        self.framing = framing_of(status, length, coding)

    @property
    def is_interim(self) -> bool:
        return self.status < 200  # 1xx: the final head follows


def read_response_head(head: bytes) -> ResponseHead:
    """Parse a complete head, interim or final, including its empty line at the end. Raises BadFraming."""
    match = HEAD.fullmatch(head)
    if match is None or len(head) > MAX_HEAD_BYTES:
        raise not_http(head)
    found = PAIR.findall(match[2])
    return ResponseHead(int(match[1]), [(name.lower(), value.rstrip(b"\t ")) for name, value in found])


def check_beginning(data: bytes) -> None:
    """Check an incomplete head at each read. Raises BadFraming if no HTTP/1.1 head begins so, or if it is too long."""
    if len(data) > MAX_HEAD_BYTES or not BEGINNING.startswith(data[: len(BEGINNING)]):
        raise not_http(data)


def not_http(data: bytes) -> BadFraming:
    return BadFraming(f"it begins with {data[:40]!r}")


def framing_of(status: int, length: bytes | None, coding: bytes | None) -> Framing:
    """Return the framing of the body after a head (not of one to HEAD, which workers are not sent). length, coding: of
    Content-Length and Transfer-Encoding, None without one. Raises BadFraming if they are wrong or contradict."""
    if coding is not None and (coding != b"chunked" or length is not None):
        raise BadFraming("its transfer-encoding is not chunked alone")
    if length is not None and (not length.isdigit() or len(length) > MAX_DIGITS):
        raise BadFraming("its content-length is no number")
    if status in BODILESS:
        return Sized(0)
    if coding is not None:
        return Chunked()
    return UntilClose() if length is None else Sized(int(length))


def says_close(options: bytes) -> bool:
    """Whether a `Connection` value has the option `close`: the connection cannot be reused after this answer."""
    return b"close" in [one.strip(b"\t ").lower() for one in options.split(b",")]
