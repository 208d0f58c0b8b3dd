"""Requests that wait for a worker with room: one line per model, first come, first served. No I/O."""

from collections import deque
from collections.abc import Iterable
from typing import Protocol


class Waiter(Protocol):
    """A request that waits. waits_since: seconds of a clock that does not go back."""

    @property
    def waits_since(self) -> float | None: ...

    def has_room(self) -> bool:
        """Whether a worker has room for the request."""
        ...

    def take_turn(self) -> None:
        """The request has left the line and goes to a worker. Raises nothing."""
        ...


class Queues:
    """The lines of all models."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Waiter]] = {}

    def length(self, model: str) -> int:
        """How many requests wait for a worker of `model`."""
        return len(self._lines.get(model, ()))

    def waits_since(self, model: str) -> float | None:
        """When the request that waits longest for a worker of `model` began to, or None if none waits."""
        line = self._lines.get(model)
        return line[0].waits_since if line else None

    def enter(self, model: str, waiter: Waiter, most: int) -> bool:
        """Puts `waiter` at the end of its line; returns whether there was a place."""
        line = self._lines.setdefault(model, deque())
        if len(line) >= most:
            if not line:
                del self._lines[model]
            return False
        line.append(waiter)
        return True

    def leave(self, model: str, waiter: Waiter) -> None:
        """Takes `waiter` out of its line, wherever it stands in it."""
        line = self._lines.get(model)
        if line is not None and waiter in line:
            line.remove(waiter)
            self._forget_if_empty(model, line)

    def serve(self, models: Iterable[str]) -> None:
        """A worker of `models` may have room: whoever is first in line goes there."""
        if not self._lines:
            return
        for model in models:
            line = self._lines.get(model, deque())
            while line and line[0].has_room():
                line.popleft().take_turn()
            self._forget_if_empty(model, line)

    def close(self) -> None:
        """From now on nobody's turn comes."""
        self._lines.clear()

    def _forget_if_empty(self, model: str, line: deque[Waiter]) -> None:
        if not line:
            self._lines.pop(model, None)
