"""A JSON text read in short turns: where the members stand that somebody looks for. Nothing is built of the rest. Pure.

A parser makes objects of a whole text: ten megabytes take half a second and a hundred megabytes of memory, and nothing
else runs meanwhile. This one goes from bracket to bracket, and takes apart only what lies on the way to a `Member`.
There it keeps to the grammar. Elsewhere it checks words and brackets, and leaves what else may be wrong to the worker,
which refuses what is no JSON: what both take, both read the same.
"""

import re
from typing import Final

import orjson

from gateway.api.errors import InvalidRequest
from gateway.body.members import Member

MAX_DEPTH: Final = 64
MAX_CONTAINERS: Final = 250_000  # objects and lists: far more than any context holds
MAX_ADDRESSES: Final = 1000
MAX_ADDRESS_BYTES: Final = 8192
MAX_NAME_BYTES: Final = 1024  # as it is written; a longer name is none that is looked for
SLICE_BYTES: Final = 16 * 1024  # what one expression reads at a time: at most a millisecond
TURN_BYTES: Final = 64 * 1024
TURN_STEPS: Final = 4096

FIRST, NAME, COLON, VALUE, AFTER, STRING, SKIP, DONE = range(8)  # what comes next
QUOTE, BACKSLASH, COMMA, COLON_MARK, SPACE = b'"'[0], b"\\"[0], b","[0], b":"[0], b" "[0]
OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST = b"{"[0], b"}"[0], b"["[0], b"]"[0]
BLANK: Final = rb"[ \t\n\r]*+"
SHORT_TEXT: Final = rb'"[^"\\]{0,40}+(?:\\.[^"\\]{0,40}+){0,20}+"'  # bytes.find is faster at longer ones
BLANKS: Final = re.compile(rb"[ \t\n\r]++")
SHORT: Final = re.compile(SHORT_TEXT, re.DOTALL)
PART_OF_TEXT: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
EXPONENT: Final = (  # beyond 308 it is infinity to most readers
    rb"[eE](?:-[0-9]++|\+?+(?=[0-9])0*+(?:[12][0-9]{2}|30[0-8]|[1-9][0-9]?)?)(?![0-9])"
)
NUMBER_OR_WORD: Final = rb"(?:-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:" + EXPONENT + rb")?|true|false|null)"
SCALAR: Final = re.compile(NUMBER_OR_WORD)
MEMBER: Final = re.compile(  # a name, and a value with the comma behind it if it is a short one
    rb'"([^"\\]{0,100}+)"' + BLANK + rb":" + BLANK
    + rb'(?:("[^"\\]{0,40}+"|' + NUMBER_OR_WORD + rb"(?=[ \t\n\r,}]))" + BLANK + rb"(," + BLANK + rb")?)?"
)  # fmt: skip
BETWEEN_BRACKETS: Final = re.compile(
    rb"(?:[ \t\n\r,:0-9.+\-]++|" + SHORT_TEXT + rb"|true|false|null|" + EXPONENT + rb")*", re.DOTALL
)


class JsonScan:
    """One text. spans: of what was looked for, first and behind last byte; twice: what of it stands there again;
    addresses: of media, as they are read, but data: URIs."""

    def __init__(self, text: bytes, root: Member) -> None:
        self.text = text
        self.spans: dict[str, tuple[int, int]] = {}
        self.twice: set[str] = set()
        self.addresses: list[str] = []
        self._size = len(text)
        self._at = 0
        self._next = VALUE
        self._root = root
        self._member: Member | None = None  # of the value that comes or is read
        self._start = 0  # of the value, or of a name
        self._behind = AFTER  # a long string: what comes next
        self._skipped = 0  # levels of a value in which nothing is looked for
        self._containers = 0
        self._open: list[Member] = []  # the objects and lists around, from the outside
        self._starts: list[int] = []
        self._lists: list[bool] = []

    def advance(self) -> bool:
        """Reads on for about a millisecond; returns whether that was all. Raises InvalidRequest."""
        stop, steps = self._at + TURN_BYTES, 0
        while self._at < stop and steps < TURN_STEPS and self._next != DONE:
            self._step()
            steps += 1
        return self._next == DONE

    def _step(self) -> None:
        if self._at >= self._size:
            self._end()
            return
        if self._next == SKIP:
            self._skip()
            return
        if self._next == STRING:
            self._read_string()
            return
        byte = self.text[self._at]
        if byte <= SPACE:
            self._pass_blanks(byte)
        elif self._next == VALUE:
            self._read_value(byte)
        elif self._next == AFTER:
            self._read_after(byte)
        elif self._next == NAME:
            self._read_name(byte)
        elif self._next == FIRST:
            self._read_first(byte)
        else:
            self._read_colon(byte)

    def _end(self) -> None:
        if self._next != AFTER or self._open:
            raise wrong("it ends too early", self._size)
        self._next = DONE

    def _pass_blanks(self, byte: int) -> None:
        if byte == SPACE and self._at + 1 < self._size and self.text[self._at + 1] > SPACE:
            self._at += 1
            return
        blanks = BLANKS.match(self.text, self._at, self._at + SLICE_BYTES)
        if blanks is None:
            raise self._unexpected()
        self._at = blanks.end()

    # values

    def _read_value(self, byte: int) -> None:
        if not self._open:
            self._member = self._root if byte == OPEN_OBJECT else None
        self._start = self._at
        if byte == QUOTE:
            found = SHORT.match(self.text, self._at, self._at + SLICE_BYTES)
            if found is None:
                self._begin_string(AFTER)
            else:
                self._at = found.end()
                self._end_value(self._member, self._start)
        elif byte in (OPEN_OBJECT, OPEN_LIST):
            self._enter(byte == OPEN_LIST)
        else:
            scalar = SCALAR.match(self.text, self._at, self._at + SLICE_BYTES)
            if scalar is None:
                raise self._unexpected()
            self._at = scalar.end()
            self._end_value(self._member, self._start)

    def _end_value(self, member: Member | None, start: int) -> None:
        self._next = AFTER
        if member is None:
            return
        if member.is_address and self.text[start] == QUOTE:
            self._take_address(start)
        if member.noted is not None:
            if member.noted in self.spans:
                self.twice.add(member.noted)
            self.spans[member.noted] = start, self._at

    def _take_address(self, start: int) -> None:
        if self.text[start + 1 : start + 6].lower() == b"data:":
            return
        if len(self.addresses) >= MAX_ADDRESSES or self._at - start > MAX_ADDRESS_BYTES:
            raise InvalidRequest(
                f"The request body has more than {MAX_ADDRESSES} addresses of media, or one of more than "
                f"{MAX_ADDRESS_BYTES} bytes: send media as data: URIs"
            )
        self.addresses.append(text_of(self.text[start : self._at]))

    # objects and lists

    def _enter(self, is_list: bool) -> None:
        self._count(len(self._open) + 1)
        self._at += 1
        member = self._member
        if member is None or not member.inner:
            self._next, self._skipped = SKIP, 1
            return
        self._open.append(member)
        self._starts.append(self._start)
        self._lists.append(is_list)
        self._next = FIRST

    def _count(self, depth: int) -> None:
        self._containers += 1
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"The request body is nested deeper than {MAX_DEPTH} levels")
        if self._containers > MAX_CONTAINERS:
            raise InvalidRequest(f"The request body has more than {MAX_CONTAINERS} objects and lists")

    def _read_first(self, byte: int) -> None:
        if byte == (CLOSE_LIST if self._lists[-1] else CLOSE_OBJECT):
            self._leave()
        else:
            self._expect_member()

    def _expect_member(self) -> None:
        if self._lists[-1]:
            self._next, self._member = VALUE, self._open[-1].element
        else:
            self._next = NAME

    def _read_after(self, byte: int) -> None:
        if not self._open:
            raise self._unexpected()
        if byte == COMMA:
            self._at += 1
            self._expect_member()
        elif byte == (CLOSE_LIST if self._lists[-1] else CLOSE_OBJECT):
            self._leave()
        else:
            raise self._unexpected()

    def _leave(self) -> None:
        self._at += 1
        self._lists.pop()
        self._end_value(self._open.pop(), self._starts.pop())

    def _skip(self) -> None:
        """Inside a value in which nothing is looked for."""
        found = BETWEEN_BRACKETS.match(self.text, self._at, self._at + SLICE_BYTES)
        end = self._at if found is None else found.end()
        if end >= self._size:
            self._at = end
            return
        byte = self.text[end]
        if byte in (OPEN_OBJECT, OPEN_LIST):
            self._skipped += 1
            self._at = end + 1
            self._count(len(self._open) + self._skipped)
        elif byte in (CLOSE_OBJECT, CLOSE_LIST):
            self._skipped -= 1
            self._at = end + 1
            if not self._skipped:
                self._end_value(self._member, self._start)
        elif byte == QUOTE:
            self._at = end
            self._begin_string(SKIP)
        elif end > self._at:
            self._at = end
        else:
            raise self._unexpected()

    # names, and strings that are long

    def _read_name(self, byte: int) -> None:
        found = MEMBER.match(self.text, self._at, self._at + SLICE_BYTES)
        if found is None:
            if byte != QUOTE:
                raise self._unexpected()
            self._start = self._at
            self._begin_string(COLON)
            return
        member = self._open[-1].inner.get(found[1])
        start = found.start(2)
        if start < 0:
            self._member, self._next = member, VALUE
        else:
            self._at = found.end(2)
            self._end_value(member, start)
            if found.start(3) >= 0:
                self._next = NAME
        self._at = found.end()

    def _read_colon(self, byte: int) -> None:
        if byte != COLON_MARK:
            raise self._unexpected()
        self._at += 1
        self._next = VALUE

    def _begin_string(self, behind: int) -> None:
        self._behind = behind
        self._at += 1
        self._next = STRING
        if self._at < self._size:
            self._read_string()

    def _read_string(self) -> None:
        """To the next quote, which is much faster than from letter to letter, unless a backslash stands before it."""
        text, at = self.text, self._at
        stop = min(at + SLICE_BYTES, self._size)
        end = text.find(b'"', at, stop)
        if end < 0 and text[stop - 1] != BACKSLASH:
            self._at = stop
            return
        if end >= 0 and text[end - 1] != BACKSLASH:
            self._at = end + 1
            self._end_string()
            return
        found = PART_OF_TEXT.match(text, at, stop)
        end = at if found is None else found.end()
        if end < self._size and text[end] == QUOTE:
            self._at = end + 1
            self._end_string()
        elif end > at:
            self._at = end
        else:
            raise wrong("a string has no end", self._size)

    def _end_string(self) -> None:
        self._next = self._behind
        if self._behind == AFTER:
            self._end_value(self._member, self._start)
        elif self._behind == COLON:
            written = self.text[self._start : self._at]
            name = text_of(written).encode() if len(written) <= MAX_NAME_BYTES else b""
            self._member = self._open[-1].inner.get(name)

    def _unexpected(self) -> InvalidRequest:
        return wrong(f"unexpected {chr(self.text[self._at])!r}", self._at)


def wrong(what: str, at: int) -> InvalidRequest:
    return InvalidRequest(f"The request body is not valid JSON: {what}, at byte {at}")


def text_of(written: bytes) -> str:
    """A string as it is written in JSON. Raises InvalidRequest."""
    try:
        return str(orjson.loads(written))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from error
