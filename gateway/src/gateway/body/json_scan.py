"""Find the positions of certain members in a JSON text, in short turns, without building objects. Pure.

A parser builds objects from a whole text: for ten megabytes that takes half a second, in which nothing else runs, and a
hundred megabytes of memory. The scan goes from bracket to bracket and reads only what is on the path to a `Member`.
There it keeps to the grammar. Elsewhere it checks only words and brackets; other faults are left to the worker, which
refuses what is not JSON. What both accept, both read the same way."""

import re
from typing import Final

import orjson

from gateway.api.errors import InvalidRequest
from gateway.body.members import Member

MAX_DEPTH: Final = 64  # levels of objects and lists
MAX_CONTAINERS: Final = 250_000  # objects and lists: far more than any context holds
MAX_ADDRESSES: Final = 1000  # of media, without data: URIs
MAX_ELEMENTS: Final = 1024  # of lists whose elements are noted, such as `tools`; OpenAI takes 128 tools
MAX_ADDRESS_BYTES: Final = 8192  # of one address
MAX_NAME_BYTES: Final = 1024  # of a name with its escapes; no name that is looked for is longer
SLICE_BYTES: Final = 16 * 1024  # that one regular expression reads at a time: at most a millisecond
TURN_BYTES: Final = 64 * 1024  # per turn, about
TURN_STEPS: Final = 4096  # per turn, at most

FIRST, NAME, COLON, VALUE, AFTER, STRING, SKIP, DONE = range(8)  # states: what is read next (AFTER: a value)
QUOTE, BACKSLASH, COMMA, COLON_MARK, SPACE = b'"'[0], b"\\"[0], b","[0], b":"[0], b" "[0]
NULL: Final = b"n"[0]  # begins null, as nothing else does: it is as good as no field
OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST = b"{"[0], b"}"[0], b"["[0], b"]"[0]
BLANK: Final = rb"[ \t\n\r]*+"
SHORT_TEXT: Final = rb'"[^"\\]{0,40}+(?:\\.[^"\\]{0,40}+){0,20}+"'  # for longer ones, bytes.find is faster
BLANKS: Final = re.compile(rb"[ \t\n\r]++")
SHORT: Final = re.compile(SHORT_TEXT, re.DOTALL)
PART_OF_TEXT: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
EXPONENT: Final = (  # at most 308: most readers take more for infinity
    rb"[eE](?:-[0-9]++|\+?+(?=[0-9])0*+(?:[12][0-9]{2}|30[0-8]|[1-9][0-9]?)?)(?![0-9])"
)
NUMBER_OR_WORD: Final = rb"(?:-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:" + EXPONENT + rb")?|true|false|null)"
SCALAR: Final = re.compile(NUMBER_OR_WORD)
MEMBER: Final = re.compile(  # a name, and its value and the comma after it if the value is short
    rb'"([^"\\]{0,100}+)"' + BLANK + rb":" + BLANK
    + rb'(?:("[^"\\]{0,40}+"|' + NUMBER_OR_WORD + rb"(?=[ \t\n\r,}]))" + BLANK + rb"(," + BLANK + rb")?)?"
)  # fmt: skip
BETWEEN_BRACKETS: Final = re.compile(
    rb"(?:[ \t\n\r,:0-9.+\-]++|" + SHORT_TEXT + rb"|true|false|null|" + EXPONENT + rb")*", re.DOTALL
)


class JsonScan:
    """The scan of one text; `JsonReading` owns it. spans: by name, the index of a value's first byte and the one behind
    its last; duplicates: names found more than once; addresses: of media, decoded, without data: URIs; elements: the
    positions of the objects and lists in a list whose elements are collected, by its name; refused: the first name or
    path found that is not taken; media_bytes: of media within the text."""

    def __init__(self, text: bytes, root: Member) -> None:
        self.text = text
        self.spans: dict[str, tuple[int, int]] = {}
        self.duplicates: set[str] = set()
        self.addresses: list[str] = []
        self.elements: list[tuple[str, int, int]] = []
        self.refused: str | None = None
        self.media_bytes = 0
        self._size = len(text)
        self._at = 0  # index of the next byte to read
        self._next = VALUE  # the state
        self._root = root
        self._member: Member | None = None  # of the value that is read; None if it is not looked for
        self._start = 0  # index of the value, or of a long name
        self._after_string = AFTER  # the state after a long string
        self._skip_depth = 0  # levels inside a value in which nothing is looked for
        self._containers = 0  # objects and lists so far
        self._open: list[Member] = []  # of the open objects and lists, outermost first
        self._starts: list[int] = []  # where each of them starts
        self._lists: list[bool] = []  # whether each of them is a list

    def advance(self) -> bool:
        """Scan for about a millisecond; `JsonReading` calls it until it returns True: done. Raises InvalidRequest."""
        stop, steps = self._at + TURN_BYTES, 0
        while self._at < stop and steps < TURN_STEPS and self._next != DONE:
            self._step()
            steps += 1
        return self._next == DONE

    def _step(self) -> None:
        """Read one token, or one slice of a long one, as the state says."""
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
        """Finish the scan at the text's end. Raises InvalidRequest if a value is not complete."""
        if self._next != AFTER or self._open:
            raise invalid_json("it ends too early", self._size)
        self._next = DONE

    def _pass_blanks(self, byte: int) -> None:
        """Pass white space: in the most frequent case, a single space, without the regular expression."""
        if byte == SPACE and self._at + 1 < self._size and self.text[self._at + 1] > SPACE:
            self._at += 1
            return
        blanks = BLANKS.match(self.text, self._at, self._at + SLICE_BYTES)
        if blanks is None:  # another byte below the space, which JSON does not allow
            raise self._unexpected()
        self._at = blanks.end()

    # values

    def _read_value(self, byte: int) -> None:
        """Read a scalar or short string whole; enter an object or list; begin a long string. byte: its first."""
        if not self._open:  # the outermost value: only an object has members
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
        """Note the value that started at `start` and ends here, if it is looked for: `member` is not None."""
        self._next = AFTER
        if member is None:
            return
        if member.is_address and self.text[start] == QUOTE:
            self._add_address(start)
        elif member.is_media:
            self.media_bytes += self._at - start
        if member.refused is not None and self.text[start] != NULL:
            self._refuse(member.refused)
        if member.refused_texts:
            self._compare_text(member, start)
        if member.collected is not None and self.text[start] in (OPEN_OBJECT, OPEN_LIST):
            self._collect(member.collected, start)
        if member.noted is not None:
            if member.noted in self.spans:
                self.duplicates.add(member.noted)
            self.spans[member.noted] = start, self._at

    def _add_address(self, start: int) -> None:
        """Add the string that starts at `start` and ends here to the addresses, unless it is a data: URI."""
        if self.text[start + 1 : start + 6].lower() == b"data:":
            self.media_bytes += self._at - start
            return
        if len(self.addresses) >= MAX_ADDRESSES or self._at - start > MAX_ADDRESS_BYTES:
            raise InvalidRequest(
                f"The request body has more than {MAX_ADDRESSES} addresses of media, or one of more than "
                f"{MAX_ADDRESS_BYTES} bytes: send media as data: URIs"
            )
        self.addresses.append(text_of(self.text[start : self._at]))

    def _refuse(self, path: str) -> None:
        """Note a member that is not taken, if it is the first. The scan goes on: a fault of the JSON counts more."""
        if self.refused is None:
            self.refused = path

    def _compare_text(self, member: Member, start: int) -> None:
        """Note the value that starts at `start` and ends here if it is one of the member's `refused_texts`."""
        if self.text[start] == QUOTE and self._at - start <= MAX_NAME_BYTES:
            path = member.refused_texts.get(text_of(self.text[start : self._at]))
            if path is not None:
                self._refuse(path)

    def _collect(self, name: str, start: int) -> None:
        """Note the object or list that starts at `start` and ends here as an element of the list `name`."""
        if len(self.elements) >= MAX_ELEMENTS:
            raise InvalidRequest(f"The request body has more than {MAX_ELEMENTS} elements in `{name}`", name)
        self.elements.append((name, start, self._at))

    # objects and lists

    def _enter(self, is_list: bool) -> None:
        """Go into an object or list, or begin to skip it if nothing in it is looked for."""
        self._count_container(len(self._open) + 1)
        self._at += 1
        member = self._member
        if member is None or not (member.inner or member.element.collected is not None):
            self._next, self._skip_depth = SKIP, 1
            return
        self._open.append(member)
        self._starts.append(self._start)
        self._lists.append(is_list)
        self._next = FIRST

    def _count_container(self, depth: int) -> None:
        """Count one object or list more, `depth` levels deep. Raises InvalidRequest if that is too many or too deep."""
        self._containers += 1
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"The request body is nested deeper than {MAX_DEPTH} levels")
        if self._containers > MAX_CONTAINERS:
            raise InvalidRequest(f"The request body has more than {MAX_CONTAINERS} objects and lists")

    def _read_first(self, byte: int) -> None:
        """Read what stands behind an opening bracket: the closing one, or the first name or element."""
        if byte == (CLOSE_LIST if self._lists[-1] else CLOSE_OBJECT):
            self._leave()
        else:
            self._expect_member()

    def _expect_member(self) -> None:
        """Set the state for the next element or name of the innermost open list or object."""
        if self._lists[-1]:
            self._next, self._member = VALUE, self._open[-1].element
        else:
            self._next = NAME

    def _read_after(self, byte: int) -> None:
        """Read what stands behind a value: a comma, or the end of the object or list around it."""
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
        """Pass the bracket that closes the innermost open object or list, and note that value if it is looked for."""
        self._at += 1
        self._lists.pop()
        self._end_value(self._open.pop(), self._starts.pop())

    def _skip(self) -> None:
        """Pass to the next bracket or long string, or by a slice, in a value in which nothing is looked for. Whether a
        bracket closes one of its own kind is left to the worker."""
        found = BETWEEN_BRACKETS.match(self.text, self._at, self._at + SLICE_BYTES)
        end = self._at if found is None else found.end()
        if end >= self._size:
            self._at = end
            return
        byte = self.text[end]
        if byte in (OPEN_OBJECT, OPEN_LIST):
            self._skip_depth += 1
            self._at = end + 1
            self._count_container(len(self._open) + self._skip_depth)
        elif byte in (CLOSE_OBJECT, CLOSE_LIST):
            self._skip_depth -= 1
            self._at = end + 1
            if not self._skip_depth:
                self._end_value(self._member, self._start)
        elif byte == QUOTE:
            self._at = end
            self._begin_string(SKIP)
        elif end > self._at:  # a slice's end, or a wrong byte, at which the next step raises
            self._at = end
        else:
            raise self._unexpected()

    # names, and strings that are long

    def _read_name(self, byte: int) -> None:
        """Read a name, with its value if that is short. A long name, or one with escapes, is read as a string."""
        found = MEMBER.match(self.text, self._at, self._at + SLICE_BYTES)
        if found is None:
            if byte != QUOTE:
                raise self._unexpected()
            self._start = self._at
            self._begin_string(COLON)
            return
        around = self._open[-1]
        member = around.inner.get(found[1])
        if member is None and around.is_closed:
            member = self._unknown(found[1].decode())
        start = found.start(2)
        if start < 0:
            self._member, self._next = member, VALUE
        else:
            self._at = found.end(2)  # `_end_value` ends the value there
            self._end_value(member, start)
            if found.start(3) >= 0:
                self._next = NAME
        self._at = found.end()

    def _unknown(self, name: str) -> Member | None:
        """Return the member for a name that is not taken, unless its value is null. None once one is refused."""
        if self.refused is not None:
            return None
        member = Member()
        member.refused = name
        return member

    def _read_colon(self, byte: int) -> None:
        """Read the colon behind a long name; `_read_name` itself reads that of a short one."""
        if byte != COLON_MARK:
            raise self._unexpected()
        self._at += 1
        self._next = VALUE

    def _begin_string(self, behind: int) -> None:
        """Begin to read a string that is too long for one regular expression. behind: the state after it."""
        self._after_string = behind
        self._at += 1
        self._next = STRING
        if self._at < self._size:  # else the next step raises
            self._read_string()

    def _read_string(self) -> None:
        """Read to the end of the string or slice: with `find`, which is fast, or a regex if a backslash precedes it."""
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
        else:  # a backslash is the text's last byte
            raise invalid_json("a string has no end", self._size)

    def _end_string(self) -> None:
        """Go on after a long string: a value, a name (it sets what is looked for in `_member`), or one to skip."""
        self._next = self._after_string
        if self._after_string == AFTER:
            self._end_value(self._member, self._start)
        elif self._after_string == COLON:
            written = self.text[self._start : self._at]
            name = text_of(written) if len(written) <= MAX_NAME_BYTES else "(a long name)"
            self._member = self._open[-1].inner.get(name.encode())
            if self._member is None and self._open[-1].is_closed:
                self._member = self._unknown(name)

    def _unexpected(self) -> InvalidRequest:
        """Return the error for the byte that is next: JSON's grammar does not allow it here."""
        return invalid_json(f"unexpected {chr(self.text[self._at])!r}", self._at)


def invalid_json(what: str, at: int) -> InvalidRequest:
    """Return the error for a text that is no JSON, or a number out of range. at: where; the end if more is missing."""
    return InvalidRequest(f"The request body is not valid JSON: {what}, at byte {at}")


def text_of(written: bytes) -> str:
    """Return the text of a JSON string, an address or a name. written: with its quotes. Raises InvalidRequest."""
    try:
        return str(orjson.loads(written))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from error
