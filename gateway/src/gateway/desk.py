"""Where large bodies are decoded, in a thread, and read, in short turns: so that no other request waits for it."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.codings import decoded


class Desk:
    """One thread, and one step of reading in each turn of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="desk")
        self._steps: deque[Callable[[], bool]] = deque()

    def decode(
        self, body: bytes, coding: str, most: int, tell: Callable[[asyncio.Future[bytes]], None]
    ) -> asyncio.Future[bytes]:
        """Decodes a body of at most `most` bytes; `tell` is called with what is returned, once that is done."""
        decoding = self._loop.run_in_executor(self._executor, decoded, body, coding, most)
        decoding.add_done_callback(tell)
        return decoding

    def read(self, step: Callable[[], bool]) -> None:
        """Calls `step`, again and again in turn with others, until it returns that there is no more to do."""
        self._steps.append(step)
        if len(self._steps) == 1:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if self._steps[0]():
            self._steps.rotate(-1)
        else:
            self._steps.popleft()
        if self._steps:
            self._loop.call_soon(self._turn)
