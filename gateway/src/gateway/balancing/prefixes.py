"""Which workers have seen which beginnings of prompts, as far as the requests sent to them tell. Bounded memory."""

import re
from collections import OrderedDict
from typing import Final

# Keys: in a string their quotes would be escaped.
PROMPT: Final = re.compile(rb'"(?:messages|prompt|input|system)"\s*:')
LOOKED_THROUGH: Final = 1 << 16  # bytes of a body in which the prompt must begin
HOLDERS: Final = 4  # workers remembered of one prefix
SWEPT: Final = 64  # prefixes past their time that one request drops at most

Holders = tuple[str, ...]  # addresses, the latest first


def prefixes_of(body: bytes, block_bytes: int, most: int) -> list[int]:
    """A number for each of the prompt's first whole blocks, at most `most`; it stands for all bytes up to its end.

    The prompt is taken as it stands in the body. The numbers mean something in this process only.
    """
    begin = PROMPT.search(body, 0, LOOKED_THROUGH)
    if begin is None:
        return []
    start, number, numbers = begin.end(), 0, []
    end = min(len(body), start + most * block_bytes)
    for at in range(start, end - block_bytes + 1, block_bytes):
        number = hash((number, body[at : at + block_bytes]))
        numbers.append(number)
    return numbers


class PrefixTable:
    """By prefix, the workers that got it last; bounded by entries, and by the seconds since one was last used."""

    def __init__(self, most: int, ttl_s: float) -> None:
        self._most = most
        self._ttl_s = ttl_s
        self._entries: OrderedDict[int, tuple[float, Holders]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def holders(self, prefix: int, now: float) -> Holders:
        """The workers that hold `prefix`, as far as is known."""
        used, holders = self._entries.get(prefix, (now, ()))
        return holders if now - used < self._ttl_s else ()

    def remember(self, prefixes: list[int], address: str, now: float) -> None:
        """Notes that the worker at `address` gets a prompt with these prefixes, shortest first."""
        for prefix in reversed(prefixes):  # so that of one prompt the longest is forgotten first
            others = tuple(other for other in self.holders(prefix, now) if other != address)
            self._entries[prefix] = now, (address, *others)[:HOLDERS]
            self._entries.move_to_end(prefix)
        self._forget(now)

    def _forget(self, now: float) -> None:
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)
        for _ in range(min(SWEPT, len(self._entries))):
            prefix, (used, _holders) = next(iter(self._entries.items()))
            if now - used < self._ttl_s:
                return
            del self._entries[prefix]
