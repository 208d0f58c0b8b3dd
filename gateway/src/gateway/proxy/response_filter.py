"""Filters that an answer's body passes on its way to the client: they read a little and change less. Pure.

Read: whether the answer is complete, and its token usage. Changed: a chat's `reasoning` is also sent under its former
name, and usage that only the gateway asked for is removed: the event with it at the end, and the member in each other
event. All other bytes stay as the worker sent them. This needs no JSON parser: inside a JSON string every quote has a
backslash before it, so `"reasoning"` and a colon are always a key. White space may be wherever JSON allows it."""

import re
from enum import Enum
from typing import Final, Protocol

from gateway.proxy.token_usage import (
    CHOICE,
    USAGE,
    USAGE_BYTES,
    USAGE_KEY,
    Meter,
    Tokens,
    last_usage,
    tokens_in,
)

KEY, FORMER_KEY = b'"reasoning"', b'"reasoning_content"'  # vLLM sends the first
VALUE: Final = rb'(?:\s*:\s*(?:null|"[^"\\]*(?:\\.[^"\\]*)*"))'
FIELD: Final = re.compile(KEY + b"(" + VALUE + b")")


def member_and_comma(key: bytes) -> re.Pattern[bytes]:
    """Return what finds a member of this name, with the comma that goes if it does."""
    return re.compile(rb",\s*" + key + VALUE + b"|" + key + VALUE + rb"\s*,?")


USAGE_EVENT: Final = re.compile(
    rb'^data: \{[^\n]*"choices"\s*:\s*\[\s*\]\s*,[^\n]*"usage"\s*:\s*\{[^\n]*\}\r?\n\r?\n', re.MULTILINE
)
MAX_HELD_BYTES: Final = 1 << 20  # of an event or document that is held back; a longer one passes in pieces
TAIL_BYTES: Final = 4096  # bytes at the end of a document, behind its texts, in which its usage is looked for
FRAGMENT_BYTES: Final = 64  # bytes kept of an unfinished line: more than any last event's line has
# A usage with any spacing, as the last of an event's members.
USAGE_MEMBER: Final = re.compile(rb',\s*"usage"\s*:\s*\{[^{}]*(?:\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}[^{}]*)*\}')
SIZE_LINES: Final = tuple(b"%x\r\n" % size for size in range(2048))  # of chunks


class ReasoningNames(Enum):
    """The name or names under which a model's reasoning is sent to the client."""

    BOTH = "both"
    REASONING = "reasoning"
    REASONING_CONTENT = "reasoning_content"
    NONE = "none"


REPLACEMENTS: Final = {
    ReasoningNames.BOTH: KEY + rb"\1," + FORMER_KEY + rb"\1",
    ReasoningNames.REASONING_CONTENT: FORMER_KEY + rb"\1",
}
REMOVED: Final = {  # where a worker itself sends the former name, alone or beside the other one
    ReasoningNames.REASONING_CONTENT: member_and_comma(KEY),
    ReasoningNames.NONE: member_and_comma(rb'"reasoning(?:_content)?"'),
}


class Edits:
    """The changes to one answer. names: of the reasoning; hide_usage: remove the event with the usage from a stream;
    cut_usage: remove the usage from each other event; meter: of a request whose usage is counted, None for others."""

    def __init__(
        self,
        names: ReasoningNames = ReasoningNames.REASONING,
        hide_usage: bool = False,
        cut_usage: bool = False,
        meter: Meter | None = None,
    ) -> None:
        self.names = names
        self.hide_usage = hide_usage
        self.cut_usage = cut_usage
        self.meter = meter
        self.renames = names is not ReasoningNames.REASONING
        self.marks = (KEY, FORMER_KEY) if names is ReasoningNames.NONE else (KEY,) if self.renames else ()
        # Whether events are held until they are complete: they are changed, or no usage in them may be missed.
        self.by_event = hide_usage or cut_usage or self.renames or meter is not None

    def apply(self, data: bytes) -> bytes:
        """Return `data`, whole events or a whole document unless these are too long, with the changes made."""
        if self.renames and (KEY in data or FORMER_KEY in data):
            data = self._renamed(data)
        if (self.hide_usage or self.cut_usage) and USAGE_KEY in data:
            if self.hide_usage:
                data = USAGE_EVENT.sub(b"", data)
            if self.cut_usage:
                data = b"\n".join([without_usage(line) for line in data.split(b"\n")])
        return data

    def _renamed(self, data: bytes) -> bytes:
        """Return `data` with each member `reasoning` under the names that are wanted, or without it if none is. A
        worker may send both names itself."""
        if FORMER_KEY not in data and self.names is not ReasoningNames.NONE:
            return FIELD.sub(REPLACEMENTS[self.names], data)
        unwanted = REMOVED.get(self.names)
        return data if unwanted is None else unwanted.sub(b"", data)


class ResponseFilter(Protocol):
    """What one answer's body passes through: a filter of this module, or `LateError`. `Relay` owns one per answer, and
    sends what it returns."""

    def pass_on(self, framed: bytes) -> bytes:
        """Return what to send for a whole chunk with its frame: in most cases itself. b"": it must be fed instead."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the body, without frame; return what can be sent now, perhaps b""."""

    def rest(self) -> bytes:
        """Return what is held back, edited, or `LateError`'s event. Called once, when the worker's body has ended."""

    @property
    def whole(self) -> bool:
        """Whether the answer is complete, if its format tells (a stream has had its last event); else always True."""

    @property
    def tokens(self) -> Tokens | None:
        """The usage that the answer has told so far, or None. Asked at the end, for log and metrics."""


class StreamFilter:
    """The filter for server-sent events. ends: the lines of which one is the last event's. An event is held back until
    it is complete only if `edits` ask for that. between_events: a comment or an error event may be sent now."""

    def __init__(self, ends: tuple[bytes, ...], edits: Edits) -> None:
        self._edits = edits
        self._meter = edits.meter
        self._cuts = edits.cut_usage
        self._end = re.compile(rb"^(?:%b)[ \r]*$" % b"|".join(map(re.escape, ends)), re.MULTILINE)
        self._marks = (*ends, USAGE_KEY, *edits.marks)  # a chunk with one is read
        self._held = b""  # of an event that is not complete
        self._fragment = b""  # of the line that is not complete
        self._usage: bytes | None = None  # the bytes with the last usage
        self._end_bytes = b""  # up to four, with which the stream so far ends
        self.whole = False
        self.between_events = True

    @property
    def finished(self) -> bool:
        """Whether the last event is complete, so that the end of the HTTP body adds nothing."""
        return self.whole and self.between_events

    def pass_on(self, framed: bytes) -> bytes:
        """Pass a chunk of whole events (ends with a blank line and the frame's CRLF), if none is held or to be read. If
        it holds one event, its usage can be cut."""
        if self._held or not self.between_events or framed[-4:] != b"\n\n\r\n":
            return b""
        meter = self._meter
        if meter is not None and self._cuts and not has_any(framed, self._edits.marks):
            event = meter.cut(framed[framed.find(b"\n") + 1 : -2])
            if event:
                size = len(event)
                line = SIZE_LINES[size] if size < len(SIZE_LINES) else b"%x\r\n" % size
                return line + event + b"\r\n"
        for mark in self._marks:
            if framed.find(mark) >= 0:  # `in` takes twice the time: it first takes the mark for a number
                return b""
        if meter is not None and meter.mark and framed.find(meter.mark) >= 0:
            meter.read(framed)
        return framed

    def feed(self, data: bytes) -> bytes:
        """Return `data` at once if no event is to be held; else the events that are complete, with the changes."""
        if not self._edits.by_event:
            return self._read(data)
        if self._held:
            data = self._held + data
        elif self._cuts and self._meter is not None:
            data = self._meter.cut(data) or data
        end = event_end(data)
        if len(data) - end > MAX_HELD_BYTES:  # too long to hold: pass it on unfinished
            return self._pass_unfinished(data)
        self._held = data[end:]
        return self._edits.apply(self._read(data[:end]))

    def _pass_unfinished(self, data: bytes) -> bytes:
        """Return what to pass on of an event that is too long to be held: all, or all but what may be half a usage."""
        if self._meter is None:
            self._held = b""
            return self._edits.apply(self._read(data))
        self._held = data[-USAGE_BYTES:]
        passed = self._edits.apply(self._read(data[:-USAGE_BYTES]))
        self._meter.read(data)
        return passed

    def rest(self) -> bytes:
        """Return what is held of an event that will not be completed any more."""
        held, self._held = self._held, b""
        return self._edits.apply(self._read(held))

    @property
    def tokens(self) -> Tokens | None:
        if self._meter is not None:
            return self._meter.tokens(self.whole)
        return tokens_in(self._usage) if self._usage is not None else None

    def _read(self, data: bytes) -> bytes:
        """Note what `data` says of the stream's end, its usage if not cut in two, and events' ends. Return `data`."""
        if not data:
            return data
        self.whole = self.whole or self._end.search(self._fragment + data) is not None
        if self._meter is not None:
            self._meter.read(data)
        elif USAGE_KEY in data and USAGE.search(data) is not None:
            self._usage = data
        line = data[data.rfind(b"\n") + 1 :]
        self._fragment = (self._fragment + line if line == data else line)[:FRAGMENT_BYTES]
        self._end_bytes = data[-4:] if len(data) >= 4 else (self._end_bytes + data)[-4:]
        self.between_events = self._end_bytes.endswith((b"\n\n", b"\r\n\r\n"))
        return data


class DocumentFilter:
    """The filter for one JSON document. It is held back until it is complete if `edits` rename something."""

    def __init__(self, edits: Edits) -> None:
        self._edits = edits
        self._parts: list[bytes] | None = [] if edits.renames else None  # held back
        self._size = 0
        self._tail = b""  # the last bytes, in which the usage is looked for
        self._is_metered = edits.meter is not None
        self._usage: bytes | None = None  # of a metered request: the last one so far, however much follows it
        self.whole = True  # Content-Length or the last chunk tells its end

    def pass_on(self, framed: bytes) -> bytes:
        return b""  # `feed` must see each piece, for the tail

    def feed(self, data: bytes) -> bytes:
        """Keep the tail, for the usage. Hold `data` back if something is to be renamed, to at most MAX_HELD_BYTES."""
        if self._is_metered and (usage := last_usage(self._tail + data)) is not None:
            self._usage = usage
        self._tail = data if len(data) >= TAIL_BYTES else (self._tail + data)[-TAIL_BYTES:]
        if self._parts is None:
            return data
        self._parts.append(data)
        self._size += len(data)
        return self._stop_holding(self._parts) if self._size > MAX_HELD_BYTES else b""

    def rest(self) -> bytes:
        return self._edits.apply(self._stop_holding(self._parts)) if self._parts is not None else b""

    @property
    def tokens(self) -> Tokens | None:
        return tokens_in(self._usage if self._usage is not None else self._tail)

    def _stop_holding(self, parts: list[bytes]) -> bytes:
        """Hold nothing back any more; return `parts`, all that was held back, as one piece."""
        self._parts = None
        return b"".join(parts)


class PassThrough:
    """Reads and changes nothing: for an error, or an answer that is neither JSON nor a stream."""

    whole = True
    tokens = None

    def pass_on(self, framed: bytes) -> bytes:
        return framed

    def feed(self, data: bytes) -> bytes:
        return data

    def rest(self) -> bytes:
        return b""


def filter_for(content_type: bytes, ends: tuple[bytes, ...], edits: Edits) -> ResponseFilter:
    """Return the filter for an answer with status 200. ends: the lines of which one ends a complete stream."""
    if content_type.startswith(b"text/event-stream"):
        return StreamFilter(ends, edits)
    return DocumentFilter(edits) if content_type.startswith(b"application/json") else PassThrough()


def has_any(data: bytes, marks: tuple[bytes, ...]) -> bool:
    """Whether one of `marks` is in `data`."""
    for mark in marks:  # noqa: SIM110  # any() would make a generator for every chunk
        if data.find(mark) >= 0:
            return True
    return False


def event_end(data: bytes) -> int:
    """Return the index behind the last complete event in `data`, 0 if there is none. A blank line ends an event."""
    if data.endswith(b"\n\n"):
        return len(data)
    return max(
        data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0,
        data.rfind(b"\n\r\n") + 3 if b"\n\r\n" in data else 0,
    )


def without_usage(line: bytes) -> bytes:
    """Return a line of an event without its usage, if it has one and a choice."""
    if USAGE_KEY not in line or CHOICE.search(line) is None:
        return line
    last = None
    for found in USAGE_MEMBER.finditer(line):
        last = found
    return line if last is None else line[: last.start()] + line[last.end() :]
