"""What is read from an answer while it passes, and the little that is changed in it. Bytes in, bytes out. No I/O.

Read: whether it is whole, and how many tokens it tells. Changed: a chat's `reasoning` gets its former name beside it,
and the usage that the gateway itself has asked for is taken out again. All other bytes stay the worker's own. No JSON
is read or written for it: `"reasoning"` with a colon behind it cannot stand inside a string of JSON, where a backslash
comes before each quote, so it is a key. White space may stand wherever JSON allows it.
"""

import re
from enum import Enum
from typing import Final, NamedTuple, Protocol

KEY, FORMER_KEY = b'"reasoning"', b'"reasoning_content"'
VALUE: Final = rb'(?:\s*:\s*(?:null|"[^"\\]*(?:\\.[^"\\]*)*"))'
FIELD: Final = re.compile(KEY + b"(" + VALUE + b")")
FIELD_AND_COMMA: Final = re.compile(rb",\s*" + KEY + VALUE + b"|" + KEY + VALUE + rb"\s*,?")
USAGE_KEY: Final = b'"usage"'
USAGE: Final = re.compile(USAGE_KEY + rb"\s*:\s*\{")
PROMPT: Final = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*([0-9]{1,15})')
COMPLETION: Final = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*([0-9]{1,15})')
USAGE_EVENT: Final = re.compile(
    rb'^data: \{[^\n]*"choices"\s*:\s*\[\s*\]\s*,[^\n]*"usage"\s*:\s*\{[^\n]*\}\r?\n\r?\n', re.MULTILINE
)
MAX_HELD_BYTES: Final = 1 << 20  # bytes of an event, or of a whole answer; what is longer passes as it is
TAIL_BYTES: Final = 4096  # of an answer, where its usage is looked for
FRAGMENT_BYTES: Final = 64  # of an unfinished line: longer than any end's mark


class Names(Enum):
    """Under which name or names a model's reasoning goes out."""

    BOTH = "both"
    REASONING = "reasoning"
    REASONING_CONTENT = "reasoning_content"
    NONE = "none"


REPLACEMENTS: Final = {
    Names.BOTH: KEY + rb"\1," + FORMER_KEY + rb"\1",
    Names.REASONING_CONTENT: FORMER_KEY + rb"\1",
}


class Tokens(NamedTuple):
    """An answer's usage, in tokens."""

    prompt: int
    completion: int


class Edits:
    """What is changed. hide_usage: the event with it, in a stream."""

    def __init__(self, names: Names = Names.REASONING, hide_usage: bool = False) -> None:
        self.names = names
        self.hide_usage = hide_usage
        self.renames = names is not Names.REASONING
        self.any = hide_usage or self.renames

    def apply(self, data: bytes) -> bytes:
        """`data`, whole events or a whole body, with the changes."""
        if self.renames and KEY in data and FORMER_KEY not in data:
            data = self._renamed(data)
        if self.hide_usage and USAGE_KEY in data:
            data = USAGE_EVENT.sub(b"", data)
        return data

    def _renamed(self, data: bytes) -> bytes:
        if self.names is Names.NONE:
            return FIELD_AND_COMMA.sub(b"", data)
        return FIELD.sub(REPLACEMENTS[self.names], data)


class Reading(Protocol):
    """One answer on its way."""

    def passes(self, framed: bytes) -> bool:
        """Whether a whole chunk may go out as it came, with its frame; it is then taken for read."""
        ...

    def feed(self, data: bytes) -> bytes:
        """What of the payload can go out now; may be b""."""
        ...

    def rest(self) -> bytes:
        """What is still held when the answer ends."""
        ...

    @property
    def whole(self) -> bool:
        """Whether the answer's own last word has come."""
        ...

    @property
    def tokens(self) -> Tokens | None: ...


class Stream:
    """Server-sent events. They are held back only where something is changed, and only until they are whole."""

    def __init__(self, ends: tuple[bytes, ...], edits: Edits) -> None:
        self._edits = edits
        self._end = re.compile(rb"^(?:%b)[ \r]*$" % b"|".join(map(re.escape, ends)), re.MULTILINE)
        self._marks = (*ends, USAGE_KEY, *((KEY,) if edits.renames else ()))
        self._held = b""
        self._fragment = b""
        self._usage: bytes | None = None
        self._last = b""
        self.whole = False
        self.between_events = True

    @property
    def finished(self) -> bool:
        """Whether the last event itself is whole, whatever becomes of the body."""
        return self.whole and self.between_events

    def passes(self, framed: bytes) -> bool:
        if self._held or not self.between_events or not framed.endswith(b"\n\n\r\n"):
            return False
        for mark in self._marks:  # noqa: SIM110  # all() would make a generator for every chunk
            if mark in framed:
                return False
        return True

    def feed(self, data: bytes) -> bytes:
        if not self._edits.any:
            return self._read(data)
        data = self._held + data if self._held else data
        end = event_end(data)
        if len(data) - end > MAX_HELD_BYTES:
            end = len(data)
        self._held = data[end:]
        return self._edits.apply(self._read(data[:end]))

    def rest(self) -> bytes:
        held, self._held = self._held, b""
        return self._edits.apply(self._read(held))

    @property
    def tokens(self) -> Tokens | None:
        return tokens_in(self._usage) if self._usage is not None else None

    def _read(self, data: bytes) -> bytes:
        if not data:
            return data
        self.whole = self.whole or self._end.search(self._fragment + data) is not None
        if USAGE_KEY in data and USAGE.search(data) is not None:
            self._usage = data
        line = data[data.rfind(b"\n") + 1 :]
        self._fragment = (self._fragment + line if line == data else line)[:FRAGMENT_BYTES]
        self._last = data[-4:] if len(data) >= 4 else (self._last + data)[-4:]
        self.between_events = self._last.endswith((b"\n\n", b"\r\n\r\n"))
        return data


class Document:
    """An answer that is one JSON document; held back until it is whole where something is changed."""

    def __init__(self, edits: Edits) -> None:
        self._edits = edits
        self._parts: list[bytes] | None = [] if edits.renames else None
        self._size = 0
        self._tail = b""
        self.whole = True

    def passes(self, framed: bytes) -> bool:
        return False

    def feed(self, data: bytes) -> bytes:
        self._tail = data if len(data) >= TAIL_BYTES else (self._tail + data)[-TAIL_BYTES:]
        if self._parts is None:
            return data
        self._parts.append(data)
        self._size += len(data)
        return self._taken(self._parts) if self._size > MAX_HELD_BYTES else b""

    def rest(self) -> bytes:
        return self._edits.apply(self._taken(self._parts)) if self._parts is not None else b""

    @property
    def tokens(self) -> Tokens | None:
        return tokens_in(self._tail)

    def _taken(self, parts: list[bytes]) -> bytes:
        self._parts = None
        return b"".join(parts)


class Opaque:
    """An answer of which nothing is read: an error, or something that is neither JSON nor a stream."""

    whole = True
    tokens = None

    def passes(self, framed: bytes) -> bool:
        return True

    def feed(self, data: bytes) -> bytes:
        return data

    def rest(self) -> bytes:
        return b""


def reading_of(content_type: bytes, ends: tuple[bytes, ...], edits: Edits) -> Reading:
    """How a good answer is read, by its content type. ends: what a whole stream contains, one of them."""
    if content_type.startswith(b"text/event-stream"):
        return Stream(ends, edits)
    return Document(edits) if content_type.startswith(b"application/json") else Opaque()


def event_end(data: bytes) -> int:
    """Where the last whole event in `data` ends; 0 if none does."""
    if data.endswith(b"\n\n"):
        return len(data)
    return max(
        data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0,
        data.rfind(b"\n\r\n") + 3 if b"\n\r\n" in data else 0,
    )


def tokens_in(data: bytes) -> Tokens | None:
    """The last usage in `data`, by OpenAI's names or Anthropic's; None if there is none to be read."""
    at = data.rfind(USAGE_KEY)
    while at >= 0 and USAGE.match(data, at) is None:
        at = data.rfind(USAGE_KEY, 0, at)
    if at < 0:
        return None
    prompt, completion = PROMPT.search(data, at), COMPLETION.search(data, at)
    if prompt is None:
        return None
    return Tokens(int(prompt[1]), int(completion[1]) if completion is not None else 0)
