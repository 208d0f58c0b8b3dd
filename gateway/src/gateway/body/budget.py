"""How many bytes of request bodies one process may hold at a time."""

from typing import Final

from gateway.api.errors import Overloaded, RequestTooLarge

TINY: Final = 64 * 1024  # bytes of a tiny body, as most chats are
SMALL: Final = 1024 * 1024  # bytes of a small one
PARTS: Final = 16  # one of them is for tiny bodies alone, and a second for tiny and small ones


class BodyBudget:
    """Bytes that are taken as they come, and given back. What is declared alone takes nothing, but a body counts as
    what it declares: a big one takes nothing that is kept for small ones. One big body is always taken, however small
    the budget. refusals: how often there was no room.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept = most // PARTS
        self._tiny = self._small = self._big = 0  # bytes that bodies of each size hold
        self.refusals = 0

    @property
    def used(self) -> int:
        return self._tiny + self._small + self._big

    def fits(self, length: int) -> bool:
        """Whether there is room for a body of `length` bytes now. Takes nothing."""
        if self._has_room(length, length, 0):
            return True
        self.refusals += 1
        return False

    def take(self, more: int, held: int, length: int) -> bool:
        """Takes `more` bytes for a body that holds `held` and declares `length` (0: unknown), if there is room."""
        before, size = max(length, held), max(length, held + more)
        if not self._has_room(more, size, held if before > SMALL else 0):
            self.refusals += 1
            return False
        self._add(-held, before)
        self._add(held + more, size)
        return True

    def give(self, held: int, length: int) -> None:
        """Gives back all that a body held."""
        self._add(-held, max(length, held))

    def _add(self, count: int, size: int) -> None:
        if size <= TINY:
            self._tiny += count
        elif size <= SMALL:
            self._small += count
        else:
            self._big += count

    def _has_room(self, more: int, size: int, big: int) -> bool:
        """For a body of `size` bytes, of which `big` are among those of big ones."""
        if not more:
            return True
        most_big = self.most - 2 * self._kept
        if size > SMALL:
            return self._big == big or self.used + more <= most_big
        filled = min(self._big, most_big) + self._small + self._tiny  # one big body may be beyond its part
        return filled + more <= self.most - (self._kept if size > TINY else 0)


def too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than {limit} bytes, the most that is taken")


def no_room() -> Overloaded:
    return Overloaded(
        "The gateway holds as many bytes of request bodies as it may: send the request again later"
    )
