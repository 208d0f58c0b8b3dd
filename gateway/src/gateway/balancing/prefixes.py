"""Remember which workers were sent which beginnings of prompts, for prefix affinity. Bounded memory, no I/O."""

import re
from collections import OrderedDict
from typing import Final

# These can only be keys: inside a JSON string, their quotes would be escaped.
PROMPT: Final = re.compile(rb'"(?:messages|prompt|input|system)"\s*:')
MAX_SEARCHED_BYTES: Final = 1 << 16  # bytes of a body in which the prompt must begin
MAX_HOLDERS: Final = 4  # workers remembered for one prefix: those that got it last
MAX_SWEPT: Final = 64  # expired prefixes that one request removes: as many as it can add (setting `blocks`)

Holders = tuple[str, ...]  # addresses of workers, the one that got the prefix last comes first


def prefixes_of(body: bytes, block_bytes: int, most: int, salt: bytes = b"") -> list[int]:
    """Return a hash for each of the prompt's first whole blocks, at most `most`; each covers all bytes up to its end.
    The prompt's bytes are taken as they are in the body; another salt makes other prefixes of them. The hashes differ
    between processes."""
    begin = PROMPT.search(body, 0, MAX_SEARCHED_BYTES)
    if begin is None:
        return []
    start, number, numbers = begin.end(), hash(salt), []
    end = min(len(body), start + most * block_bytes)
    for at in range(start, end - block_bytes + 1, block_bytes):
        number = hash((number, body[at : at + block_bytes]))
        numbers.append(number)
    return numbers


class PrefixTable:
    """Maps a prefix to the workers that got it last: at most `most` prefixes, each until `ttl_s` after its last use."""

    def __init__(self, most: int, ttl_s: float) -> None:
        self._most = most
        self._ttl_s = ttl_s
        self._entries: OrderedDict[int, tuple[float, Holders]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def holders(self, prefix: int, now: float) -> Holders:
        """Return the workers that got `prefix` last and may still have it cached, or have left; () if none is known."""
        used, holders = self._entries.get(prefix, (now, ()))
        return holders if now - used < self._ttl_s else ()

    def remember(self, prefixes: list[int], address: str, now: float) -> None:
        """Note that the worker at `address` gets a prompt with these prefixes, which come shortest first."""
        for prefix in reversed(prefixes):  # so that of one prompt the longest is forgotten first
            others = tuple(other for other in self.holders(prefix, now) if other != address)
            self._entries[prefix] = now, (address, *others)[:MAX_HOLDERS]
            self._entries.move_to_end(prefix)
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Remove the oldest entries beyond the maximum, and up to MAX_SWEPT expired ones: more would take too long."""
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)
        for _ in range(min(MAX_SWEPT, len(self._entries))):
            prefix, (used, _holders) = next(iter(self._entries.items()))
            if now - used < self._ttl_s:
                return
            del self._entries[prefix]
