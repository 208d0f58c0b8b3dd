"""Rendezvous hashing: choose a member for a key, the same in every process. Pure.

If a member leaves, only its own keys move; if one comes, only the keys move that it takes. For sessions."""

from collections.abc import Sequence
from hashlib import blake2b
from math import inf, log
from typing import Final

MASK: Final = (1 << 64) - 1  # keeps numbers to 64 bits
GOLDEN: Final = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: its multiples spread evenly


def number_of(key: bytes) -> int:
    """Return a 64-bit hash of `key`, the same in every process, unlike Python's own `hash`."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def mixed(number: int) -> int:
    """Return a 64-bit hash of `number`, fast: each bit depends on all of its bits (splitmix64's last step)."""
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
    return number ^ (number >> 31)


def fraction(turn: int) -> float:
    """Return a point in [0, 1) for a running number, so that successive numbers cover the range evenly: a share of
    turns (a split's, or in a slow start) that goes by it comes without runs of luck."""
    return ((turn * GOLDEN) & MASK) / (MASK + 1)


def preferred(key: int, members: Sequence[int], weights: Sequence[float]) -> int:
    """Return the index of the member for `key`. Members get keys in proportion to their weights, which are above 0. The
    highest log(u) / weight wins, where u is a hash of key and member in (0, 1)."""
    best, index = -inf, 0
    for at, member in enumerate(members):
        score = log((mixed(key ^ member) + 1) / (MASK + 2)) / weights[at]
        if score > best:
            best, index = score, at
    return index
