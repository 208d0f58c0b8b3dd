"""Bound the bytes of request bodies that one process holds at a time. Pure."""

from typing import Final

from gateway.api.errors import Overloaded, RequestTooLarge

TINY: Final = 64 * 1024  # bytes that a tiny body has at most, as most chats do
SMALL: Final = 1024 * 1024  # bytes that a small body has at most; a larger one is big
RESERVED_PARTS: Final = 16  # one of these is reserved for tiny bodies, one for tiny and small bodies


class BodyBudget:
    """The bytes of all bodies in flight; one per process. `ClientRequest` takes a body's bytes as they arrive and gives
    them back. A body's declared length takes no bytes, but decides its size: a big body never uses what is reserved for
    small ones. One big body is always taken, however small the budget is. refusals: how often there was no room; a slow
    body is cut off while others are refused."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._reserved = most // RESERVED_PARTS
        self._tiny = self._small = self._big = 0  # bytes that bodies of each size hold
        self.refusals = 0

    @property
    def used(self) -> int:
        return self._tiny + self._small + self._big

    def fits(self, length: int) -> bool:
        """Return whether a body that declares `length` bytes has room now; if not, count a refusal. Takes nothing."""
        if self._has_room(length, length, 0):
            return True
        self.refusals += 1
        return False

    def take(self, more: int, held: int, length: int) -> bool:
        """Take `more` bytes for a body that holds `held` and declares `length` (0: unknown). Return False, and count a
        refusal, if there is no room. A body that outgrows its size counts as one of the next size."""
        before, size = max(length, held), max(length, held + more)
        if not self._has_room(more, size, held if before > SMALL else 0):
            self.refusals += 1
            return False
        self._add(-held, before)
        self._add(held + more, size)
        return True

    def give(self, held: int, length: int) -> None:
        """Give back all `held` bytes of a body that declared `length` (0: unknown): it is freed."""
        self._add(-held, max(length, held))

    def _add(self, count: int, size: int) -> None:
        """Add `count` (negative to give back) to what the tiny, small or big bodies hold; `size` tells which."""
        if size <= TINY:
            self._tiny += count
        elif size <= SMALL:
            self._small += count
        else:
            self._big += count

    def _has_room(self, more: int, size: int, big: int) -> bool:
        """Whether a body of `size` bytes may take `more`. big: bytes that it already holds as a big body."""
        if not more:  # no length is declared, or nothing was decoded
            return True
        most_big = self.most - 2 * self._reserved
        if size > SMALL:
            return self._big == big or self.used + more <= most_big  # equal: it is the only big body
        filled = min(self._big, most_big) + self._small + self._tiny  # one big body may exceed most_big
        return filled + more <= self.most - (self._reserved if size > TINY else 0)


def too_large(limit: int) -> RequestTooLarge:
    """Return the error for a body of more than `limit` bytes, a fixed limit: sending it again is of no use."""
    return RequestTooLarge(f"The request body is larger than {limit} bytes, the most that is taken")


def no_room() -> Overloaded:
    """Return the error for a body for which the budget has no room now: sent again later, it may fit."""
    return Overloaded(
        "The gateway holds as many bytes of request bodies as it may: send the request again later"
    )
