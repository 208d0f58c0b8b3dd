"""Where bodies are decoded: in one thread, one after another, as it would hold the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.codings import decoded


class Desk:
    """A thread for compressed bodies."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="desk")

    def decode(
        self, body: bytes, coding: str, most: int, tell: Callable[[asyncio.Future[bytes]], None]
    ) -> asyncio.Future[bytes]:
        """Decodes a body of at most `most` bytes; `tell` is called with what is returned, once that is done."""
        decoding = self._loop.run_in_executor(self._thread, decoded, body, coding, most)
        decoding.add_done_callback(tell)
        return decoding
