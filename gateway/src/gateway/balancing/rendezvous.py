"""Rendezvous hashing: every key has its own order of preference among the members, the same in every process.

A member that leaves gives up its own keys alone, and one that comes takes none but its own from the others.
"""

from collections.abc import Sequence
from hashlib import blake2b
from math import inf, log
from typing import Final

MASK: Final = (1 << 64) - 1
GOLDEN: Final = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio


def number_of(key: bytes) -> int:
    """64 bits that stand for `key`."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def mixed(number: int) -> int:
    """`number`'s 64 bits, each of which every other one decides (the last step of splitmix64)."""
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
    return number ^ (number >> 31)


def fraction(turn: int) -> float:
    """A point in [0, 1) for a running number; any run of turns covers the range about evenly."""
    return ((turn * GOLDEN) & MASK) / (MASK + 1)


def preferred(key: int, members: Sequence[int], weights: Sequence[float]) -> int:
    """The index of the member that `key` prefers. A member gets keys in proportion to its weight, which is above 0."""
    best, index = -inf, 0
    for at, member in enumerate(members):
        score = log((mixed(key ^ member) + 1) / (MASK + 2)) / weights[at]
        if score > best:
            best, index = score, at
    return index
