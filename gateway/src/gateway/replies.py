"""A worker's head: matched whole against RFC 9112's grammar, and only then taken apart. Pure."""

import re
from typing import Final

from gateway.framing import TEXT, TOKEN, BadFraming, Chunked, Framing, Sized, UntilClose

END: Final = b"\r\n\r\n"
BEGINNING: Final = b"HTTP/1.1 "
MOST_HEAD_BYTES: Final = 64 * 1024
MOST_DIGITS: Final = 18  # of a length
HEAD: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})(?: %b)?\r\n((?:%b:%b\r\n)*+)\r\n" % (TEXT, TOKEN, TEXT))
FIELD: Final = re.compile(rb"(%b):[\t\x20]*+(%b)\r\n" % (TOKEN, TEXT))
BODILESS: Final = (204, 304)
SWITCHING: Final = 101
Headers = list[tuple[bytes, bytes]]


class Reply:
    """A head, taken apart. fields: with lower-case names, and values without white space around them."""

    __slots__ = ("fields", "framing", "keep_alive", "status")

    def __init__(self, status: int, fields: Headers) -> None:
        """Raises BadFraming where it is ambiguous how its body is framed, or what was asked for is something else."""
        if status == SWITCHING:
            raise BadFraming("it changes the protocol, which nobody has asked for")
        self.status = status
        self.fields = fields
        self.framing = framing_of(status, fields)
        self.keep_alive = not says_close(fields)

    @property
    def is_interim(self) -> bool:
        return self.status < 200


def read_reply(head: bytes) -> Reply:
    """A head with its last empty line. Raises BadFraming."""
    match = HEAD.fullmatch(head)
    if match is None or len(head) > MOST_HEAD_BYTES:
        raise not_http(head)
    found = FIELD.findall(match[2])
    return Reply(int(match[1]), [(name.lower(), value.rstrip(b"\t ")) for name, value in found])


def check_beginning(data: bytes) -> None:
    """Of a head that is not whole. Raises BadFraming if it cannot become one."""
    if len(data) > MOST_HEAD_BYTES or not BEGINNING.startswith(data[: len(BEGINNING)]):
        raise not_http(data)


def not_http(data: bytes) -> BadFraming:
    return BadFraming(f"it begins with {data[:40]!r}")


def framing_of(status: int, fields: Headers) -> Framing:
    """How the body behind a head is framed. Raises BadFraming if that is ambiguous."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or lengths):
        raise BadFraming("its transfer-encoding is not chunked alone")
    if lengths and (len(set(lengths)) > 1 or not lengths[0].isdigit() or len(lengths[0]) > MOST_DIGITS):
        raise BadFraming("its content-length is no number")
    if status in BODILESS:
        return Sized(0)
    if codings:
        return Chunked()
    return Sized(int(lengths[0])) if lengths else UntilClose()


def says_close(fields: Headers) -> bool:
    """Whether the worker ends the connection behind this answer."""
    for name, value in fields:
        if name == b"connection" and b"close" in [one.strip(b"\t ").lower() for one in value.split(b",")]:
            return True
    return False
