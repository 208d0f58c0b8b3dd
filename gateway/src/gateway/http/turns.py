"""Run long work on the event loop in short steps: one step in each turn of the loop."""

import asyncio
from collections import deque
from collections.abc import Callable

Work = Callable[[], bool]  # does one step; returns whether there is more to do


class Turns:
    """A queue: the work at its front does one step and goes to the end, so that no request holds up the others. One
    is for bodies of many chunks (`Listener.turns`), one for reading large bodies (`Context.turns`)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Work] = deque()
        self._is_due = False  # whether the loop is to call _turn

    def add(self, step: Work) -> None:
        """Call `step` in later turns of the loop until it returns False or raises; never before `add` returns."""
        self._waiting.append(step)
        self._schedule()

    def _schedule(self) -> None:
        """Have the loop call `_turn` in its next turn if work waits, unless it will do so anyway."""
        if self._waiting and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Do one step of the work at the front, and put it at the end if it has more; called by the event loop."""
        self._is_due = False
        step = self._waiting.popleft()
        try:
            if step():
                self._waiting.append(step)
        finally:  # also if the step raised: the others must go on
            self._schedule()
