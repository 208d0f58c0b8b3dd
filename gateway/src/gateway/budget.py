"""How many bytes of request bodies one process may hold at a time."""

from typing import Final

SMALL: Final = 1024 * 1024  # bytes of a small body
KEPT_BACK: Final = 8  # one part in so many is for small bodies alone, which get through beside big ones


class BodyBudget:
    """Bytes that are taken and given back. One big body is always taken, however small the budget."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept_back = most // KEPT_BACK
        self._small = self._big = 0  # bytes that small and big bodies hold

    @property
    def used(self) -> int:
        return self._small + self._big

    def take(self, more: int, held: int) -> bool:
        """Takes `more` bytes for a body that holds `held` of them, if there is room."""
        if more and not self._has_room(more, held):
            return False
        if held + more <= SMALL:
            self._small += more
        else:
            self.give(held)
            self._big += held + more
        return True

    def give(self, held: int) -> None:
        """Gives back all that a body held."""
        if held <= SMALL:
            self._small -= held
        else:
            self._big -= held

    def _has_room(self, more: int, held: int) -> bool:
        if held + more <= SMALL:
            return self.used + more <= self.most or self._small + more <= self._kept_back
        is_alone = self._big == (held if held > SMALL else 0)
        return is_alone or self.used + more <= self.most - self._kept_back
