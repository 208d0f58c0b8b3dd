"""Requests that wait for a worker with room: a queue per model, first come, first served. No I/O: it calls waiters."""

from collections import deque
from collections.abc import Iterable
from typing import Protocol


class Waiter(Protocol):
    """A request in the queue, as the queue sees it; `ProxyHandler` is one."""

    @property
    def waits_since(self) -> float | None:
        """Since when it waits, in seconds of a clock that does not go back; None once it is out of the queue."""

    def has_room(self) -> bool:
        """Return whether a worker of its model takes one more request. Asked of the first in the queue."""

    def send_now(self) -> None:
        """Send the request to a worker, within this call. Called once it is out of the queue. Must not raise."""


class Queues:
    """The queues of all models. One per process. A model has an entry only while a request waits for it."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Waiter]] = {}

    def length(self, model: str) -> int:
        """Return how many requests wait for a worker of `model`, for the metrics."""
        return len(self._lines.get(model, ()))

    def waits_since(self, model: str) -> float | None:
        """Return since when the first request for `model` waits, or None if none does, for the metrics."""
        line = self._lines.get(model)
        return line[0].waits_since if line else None

    def enter(self, model: str, waiter: Waiter, most: int) -> bool:
        """Append `waiter` to the queue of `model`. Return False if that already holds `most` requests."""
        line = self._lines.setdefault(model, deque())
        if len(line) >= most:
            if not line:  # most is 0: this model has no queue
                del self._lines[model]
            return False
        line.append(waiter)
        return True

    def leave(self, model: str, waiter: Waiter) -> None:
        """Remove `waiter` from the queue of `model`, unless `clear` has: its request has ended while it waited."""
        line = self._lines.get(model)
        if line is not None and waiter in line:
            line.remove(waiter)
            self._forget_if_empty(model, line)

    def serve(self, models: Iterable[str]) -> None:
        """Send queued requests for `models`, oldest first, for as long as their workers have room. Called whenever
        there may be room: a request has ended, a worker's state has changed, or a quarter of a second has passed."""
        if not self._lines:
            return
        for model in models:
            line = self._lines.get(model, deque())
            while line and line[0].has_room():
                line.popleft().send_now()
            self._forget_if_empty(model, line)

    def clear(self) -> None:
        """Forget all queued requests at the end of the drain, or each request that ends would let one of them be sent.
        `Listener.end_all` ends them."""
        self._lines.clear()

    def _forget_if_empty(self, model: str, line: deque[Waiter]) -> None:
        """Drop the queue of `model` if it is empty, so that `serve`, which every request calls, finds nothing to do."""
        if not line:
            self._lines.pop(model, None)
