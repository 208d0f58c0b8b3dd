"""Parse a request's head: it must be complete and match RFC 9112's grammar as a whole before it is split. Pure.

Refused is what the grammar does not allow, and what two parsers could read differently, since behind another proxy it
could smuggle in a second request. Nothing is corrected."""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.api.errors import GatewayError, HeadTooLarge, InvalidRequest
from gateway.http.framing import CRLF, TEXT, TOKEN, Chunked, Framing, Sized
from gateway.http.headers import Headers

END: Final = b"\r\n\r\n"
TARGET: Final = rb"[!$-;=?-\[\]-~]++"  # visible ASCII without the five that every client encodes: " # < > \

LINE: Final = re.compile(rb"(?:\r\n)?(%b) (%b) HTTP/1\.([01])\r\n" % (TOKEN, TARGET))
HEAD: Final = re.compile(rb"%b((?:%b:%b\r\n)*+)\r\n" % (LINE.pattern, TOKEN, TEXT))
FIELD: Final = re.compile(rb"%b:%b" % (TOKEN, TEXT))
NAME: Final = re.compile(rb"[!-9;-~]++(?=[\t ]*+:)")  # of a line that is no FIELD, for the message
PAIR: Final = re.compile(rb"([^:\r]++):[\t ]*+([^\r]*+)\r\n")  # splits lines that match HEAD
# What may stand nowhere in a head:
FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])")
BEGINNING: Final = re.compile(rb"\r?\Z|(?:\r\n)?(?:\Z|%b(?: |\Z))" % TOKEN)
MAX_BEGINNING_BYTES: Final = 64  # of an incomplete head that must match BEGINNING: methods are shorter

HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
ABSOLUTE: Final = re.compile(rb"https?://([^/?]++)([^?]*+)(?:\?.*)?", re.IGNORECASE)
PLAIN: Final = re.compile(rb"[!$&-;=@-\[\]-~]+")  # visible, without ? # %
MAX_DIGITS: Final = 18  # digits of a Content-Length; one with more counts as ENDLESS
ENDLESS: Final = 10**MAX_DIGITS  # bytes; larger than any limit

SINGLE: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})  # headers that may occur once
WATCHED: Final = SINGLE | {b"connection", b"expect"}  # headers that are interpreted here


class Head:
    """A parsed head. fields: headers with lower-case names and stripped values; path: as sent, still percent-encoded;
    length: Content-Length, 0 without one; keep_alive: never for HTTP/1.0; expects: it waits for `100 Continue`."""

    def __init__(self, method: bytes, target: bytes, http_1_0: bool, pairs: Headers) -> None:
        """pairs: names and values that match the grammar; white space may follow a value. Raises InvalidRequest."""
        fields = [(name.lower(), value.rstrip(b"\t ")) for name, value in pairs]
        known: dict[bytes, bytes] = {}
        for name, value in fields:
            if name in WATCHED:
                known[name] = value if name not in known else joined(name, known[name], value)
        host = known.get(b"host")
        check_host(host, http_1_0)
        self.method = method
        self.target = target
        self.http_1_0 = http_1_0
        self.fields = fields
        self.path = path_of(method, target, host)
        self.chunked = is_chunked(known, http_1_0)
        length = known.get(b"content-length")
        self.length = 0 if length is None else length_of(length)
        options = known.get(b"connection")
        self.keep_alive = not http_1_0 and (options is None or not says_close(options))
        self.expects = not http_1_0 and b"expect" in known and known[b"expect"].lower() == b"100-continue"

    def framing(self) -> Framing:
        """Return a new parser for the body that follows; the connection feeds it."""
        return Chunked() if self.chunked else Sized(self.length)


class HeadReader:
    """Collects the heads that come on one connection, of at most `most` bytes and `most_fields` headers each. end:
    index of the first byte not consumed in the data fed last; beginning: bytes of the head that was refused."""

    def __init__(self, most: int, most_fields: int) -> None:
        self._most = most
        self._most_fields = most_fields
        self._kept = bytearray()  # bytes of a head that is not complete
        self.end = 0
        self.beginning = b""

    @property
    def begun(self) -> bool:
        """Whether a part of a head has been fed. One empty line before a head is allowed and does not count."""
        return len(self._kept) > 0 and self._kept != CRLF

    def feed(self, data: bytes, at: int) -> Head | None:
        """Consume `data` from index `at`; return the head once it is complete, else None. Raises GatewayError."""
        kept = self._kept
        if not kept:  # most heads come whole: they are parsed without a copy
            end = data.find(END, at) + len(END)  # less than len(END) if it was not found
            if len(END) <= end <= at + self._most:
                self.end = end
                return self._parse(data, at, end)
        before = len(kept)
        kept += data[at:]
        end = kept.find(END, max(0, before - len(END) + 1)) + len(END)  # END may be split over reads
        if end < len(END) or end > self._most:
            self.end = len(data)
            self._check_partial(before)
            return None
        head = bytes(kept[:end])
        kept.clear()
        self.end = at + end - before
        return self._parse(head, 0, end)

    def _parse(self, data: bytes, at: int, end: int) -> Head:
        """Parse the complete head in `data[at:end]`. Raises InvalidRequest or HeadTooLarge, with it in `beginning`."""
        match = HEAD.fullmatch(data, at, end)
        try:
            if match is None:
                raise InvalidRequest(what_is_wrong(data[at:end]))
            method, target, minor, lines = match.groups()
            pairs = PAIR.findall(lines)
            if len(pairs) > self._most_fields:
                raise self._too_large()
            return Head(method, target, minor == b"0", pairs)
        except GatewayError:
            self.beginning = data[at:end]
            raise

    def _check_partial(self, before: int) -> None:
        """Raise InvalidRequest if no valid head begins with the kept bytes, of which the first `before` were checked
        earlier, or HeadTooLarge. The result does not depend on how the bytes were split over reads."""
        kept, most = self._kept, self._most
        line_end = kept.find(CRLF, len(CRLF), most)  # of the first line; an empty one may come before
        if (
            FORBIDDEN.search(kept, max(0, before - 1), most) is not None  # its patterns span two bytes
            or BEGINNING.match(kept, 0, min(most, MAX_BEGINNING_BYTES)) is None
            or (line_end >= max(0, before - 1) and LINE.match(kept) is None)  # once, when its end has come
        ):
            problem: GatewayError = InvalidRequest(what_is_wrong(bytes(kept[:most])))
        elif len(kept) > most:
            problem = self._too_large()
        else:
            return
        self.beginning = bytes(kept[:most])
        kept.clear()
        raise problem

    def _too_large(self) -> GatewayError:
        return HeadTooLarge(
            f"The request has more than {self._most_fields} headers or {self._most} bytes of them; "
            "GATEWAY_MAX_HEADERS and GATEWAY_MAX_HEAD_BYTES set how many are taken"
        )


def what_is_wrong(head: bytes) -> str:
    """Return the error message for a head that does not match the grammar: it tells of the first wrong line, but not
    what might be a key or a value of a query: answers and the log show it."""
    lines = head.removeprefix(CRLF).split(CRLF)
    if LINE.match(head) is None:
        return f"The request does not begin as HTTP/1.1 does: {shown(lines[0].partition(b' ')[0][:8])}"
    wrong = next((line for line in lines[1:] if line and FIELD.fullmatch(line) is None), b"")
    name = NAME.match(wrong)
    which = f"of {len(wrong)} bytes" if name is None else f"that begins with {shown(name[0])}"
    return f"The request has a line {which} and is no HTTP/1.1 header"


def shown(word: bytes) -> str:
    """Return the first 20 bytes of `word` in quotes and escaped, without the b before them, for a message."""
    return repr(word[:20])[1:]


def joined(name: bytes, before: bytes, value: bytes) -> bytes:
    """Join the values of two headers of one name into a list. Raises InvalidRequest if the name may occur only once."""
    if name in SINGLE:
        raise InvalidRequest(f"The request has more than one {name.decode()} header")
    return before + b"," + value


def check_host(host: bytes | None, http_1_0: bool) -> None:
    """Raise InvalidRequest if `Host` is malformed, or missing in HTTP/1.1. HostCheck judges later which are served."""
    if host is None:
        if not http_1_0:
            raise InvalidRequest("The request must have a Host header")
    elif not is_host(host):
        raise InvalidRequest("The Host header is not a host and port")


@lru_cache(maxsize=256)  # bounded, since clients choose the values
def is_host(host: bytes) -> bool:
    """Whether `host` is a host with an optional port. Cached, since almost all requests name one of a few."""
    return HOST.fullmatch(host) is not None


def path_of(method: bytes, target: bytes, host: bytes | None) -> bytes:
    """Return the target's path as sent, without the query. Raises InvalidRequest for CONNECT or a malformed target."""
    if method == b"CONNECT":
        raise InvalidRequest("The gateway is no proxy: it opens no tunnels")
    if target.startswith(b"/"):
        return target.partition(b"?")[0]
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise InvalidRequest(f"The request's target is no path: it begins with {shown(target[:7])}")
    if host is not None and absolute[1].lower() != host.lower():
        raise InvalidRequest("The request's target names another host than its Host header")
    if not is_host(absolute[1]):
        raise InvalidRequest("The request's target names no host and port")
    return absolute[2] or b"/"


def is_chunked(known: dict[bytes, bytes], http_1_0: bool) -> bool:
    """Whether the body is chunked. Raises InvalidRequest if its length is not clear, or for another coding."""
    coding = known.get(b"transfer-encoding")
    if coding is None:
        return False
    if b"content-length" in known:
        raise InvalidRequest("The request has both a Content-Length and a Transfer-Encoding header")
    if http_1_0:
        raise InvalidRequest("HTTP/1.0 knows no Transfer-Encoding")
    if coding.lower() != b"chunked":
        raise InvalidRequest("The only Transfer-Encoding that is taken is chunked")
    return True


def length_of(value: bytes) -> int:
    """Return a Content-Length as a number, ENDLESS if it has too many digits. Raises InvalidRequest."""
    if not value.isdigit():
        raise InvalidRequest("The Content-Length header is no number of bytes")
    return int(value) if len(value) <= MAX_DIGITS else ENDLESS


def says_close(options: bytes) -> bool:
    """Whether a `Connection` value has the option `close`: the client sends no further request."""
    options = options.lower()
    return b"close" in options and b"close" in [one.strip(b"\t ") for one in options.split(b",")]


def decoded(path: bytes) -> bytes:
    """Return `path` percent-decoded: a client may encode letters that need not be, and its route is found by this."""
    return unquote_to_bytes(path)


def is_plain(path: bytes) -> bool:
    """Whether a decoded path can be sent to a worker unencoded and still mean the same; any other has no route."""
    return PLAIN.fullmatch(path) is not None


def path_in(beginning: bytes) -> bytes:
    """Return the path that an invalid head seems to ask for, or b"". It chooses the error's dialect: 1000 bytes do."""
    words = beginning[:1000].removeprefix(CRLF).split(b" ", 2)
    return words[1].partition(b"?")[0] if len(words) > 1 else b""
