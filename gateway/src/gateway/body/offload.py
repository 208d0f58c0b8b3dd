"""Where bodies are decoded, in a thread, and large ones read, in short turns: so that no other request waits for it."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from gateway.body.content_coding import Decoding

Tell = Callable[[BaseException | None], bool]


class Desk:
    """One thread, and one step of reading in each turn of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="desk")
        self._decodings: OrderedDict[Decoding, Tell] = OrderedDict()  # that wait for their next turn
        self._is_decoding = False
        self._steps: deque[Callable[[], bool]] = deque()

    def decode(self, decoding: Decoding, tell: Tell) -> None:
        """Has the thread decode a body, in turns with others. `tell` is called after each turn, with the error that
        came of it or None, and returns whether there is to be one more."""
        self._decodings[decoding] = tell
        if not self._is_decoding:
            self._decode_on()

    def forget(self, decoding: Decoding) -> None:
        """There is to be no more turn of it."""
        self._decodings.pop(decoding, None)

    def _decode_on(self) -> None:
        self._is_decoding = bool(self._decodings)
        if self._decodings:
            decoding, tell = self._decodings.popitem(last=False)
            turn = self._loop.run_in_executor(self._executor, decoding.advance)
            turn.add_done_callback(partial(self._on_turn, decoding, tell))

    def _on_turn(self, decoding: Decoding, tell: Tell, turn: asyncio.Future[None]) -> None:
        if tell(turn.exception()):
            self._decodings[decoding] = tell
        self._decode_on()

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
