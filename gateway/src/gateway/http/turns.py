"""Work that may take long, done in short steps: one in each turn of the event loop, whoever asked for it."""

import asyncio
from collections import deque
from collections.abc import Callable

Step = Callable[[], bool]


class Turns:
    """Steps that wait for their turn, first come, first served."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._steps: deque[Step] = deque()
        self._is_due = False

    def take(self, step: Step) -> None:
        """Calls `step`, again and again in turn with others, until it returns that there is no more to do."""
        self._steps.append(step)
        self._go_on()

    def _go_on(self) -> None:
        if self._steps and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_due = False
        step = self._steps.popleft()
        try:
            if step():
                self._steps.append(step)
        finally:  # whatever becomes of one, the others have their turn
            self._go_on()
