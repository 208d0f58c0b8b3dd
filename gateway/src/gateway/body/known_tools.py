"""Texts of `tools` that were read before: most clients send the same ones with each request, and of a small body they
have the most names. Where names are looked for, a known text is left out, which saves that time."""

import json
from collections.abc import Collection
from typing import Final

MARK: Final = b'"tools":'
LEAST_BYTES: Final = 1024  # of a body in which tools are looked for
LEARN_EVERY: Final = (
    16  # bodies with unknown tools, of which one is learned: it takes ten times as long as a known one
)
MOST: Final = 128  # texts that are known, of at most a small body's size
KEY_BYTES: Final = 256  # of a text's beginning, by which it is looked up
MOST_BRACKETS: Final = 1024  # of a text that is learned


class KnownTools:
    """The texts that are known, by their beginnings. `BodyReader` has one. refused: names that no known text has in it,
    since they matter wherever they stand; escape: likewise a mark."""

    def __init__(self, refused: Collection[bytes], escape: bytes) -> None:
        self._marks = [escape, *[b'"%b"' % name for name in refused]]
        self._known: dict[bytes, tuple[bytes, bytes]] = {}  # the text, and what stands for it
        self._misses = 0

    def cut(self, body: bytes) -> bytes:
        """Return a JSON text with brackets alone, as deep as it is, in place of the first value of a member `tools`, if
        that is known; else the text itself. In JSON no string can have the mark in it: its quotes would be escaped."""
        at = body.find(MARK) if len(body) >= LEAST_BYTES else -1
        if at < 0:
            return body
        begin = at + len(MARK)
        if body[begin : begin + 1] == b" ":
            begin += 1
        key = body[begin : begin + KEY_BYTES]
        text, stand_in = self._known.get(key, NOTHING)
        if text and body.startswith(text, begin):
            return body[:begin] + stand_in + body[begin + len(text) :]
        self._misses += 1
        if self._misses % LEARN_EVERY == 0:
            self._learn(body, begin, key)
        return body

    def _learn(self, body: bytes, begin: int, key: bytes) -> None:
        """Remember the list that begins there, if nothing in it matters to who looks for names."""
        try:
            rest = body[begin:].decode()
            value, size = DECODER.raw_decode(rest)
        except (ValueError, RecursionError):
            return
        text = rest[:size].encode()
        if not text.startswith(b"[") or text.count(b"{") + text.count(b"[") > MOST_BRACKETS:
            return
        if any([mark in text for mark in self._marks]):  # noqa: C419  # mypyc makes a list cheaper
            return
        depth = levels(value)
        if len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[key] = text, b"[" * depth + b"]" * depth


def values_of(pairs: list[tuple[str, object]]) -> list[object]:
    """Return the values in an object, also those of a name that stands twice: a dict would lose how deep they are."""
    return [value for _, value in pairs]


DECODER: Final = json.JSONDecoder(object_pairs_hook=values_of)
NOTHING: Final = (b"", b"")


def levels(value: object) -> int:
    """Return how many levels of lists there are in `value`, which `DECODER` has made."""
    level, depth = [value], 0
    while level:
        below: list[object] = []
        for one in level:
            if isinstance(one, list):
                below += [part for part in one if isinstance(part, list)]
        level, depth = below, depth + 1
    return depth
