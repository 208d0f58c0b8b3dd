"""Where large bodies are put together and decoded: in a thread, in short turns, so that no other request waits."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from gateway.body.content_coding import Decoding

Tell = Callable[[BaseException | None], bool]


class Offload:
    """One thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")
        self._decodings: OrderedDict[Decoding, Tell] = OrderedDict()  # that wait for their next turn
        self._is_decoding = False

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
        while self._decodings and not self._is_decoding:
            decoding, tell = self._decodings.popitem(last=False)
            try:
                turn = self._loop.run_in_executor(self._executor, decoding.advance)
            except RuntimeError as fault:  # no thread can be started
                tell(fault)
                continue
            self._is_decoding = True
            turn.add_done_callback(partial(self._on_turn, decoding, tell))

    def _on_turn(self, decoding: Decoding, tell: Tell, turn: asyncio.Future[None]) -> None:
        self._is_decoding = False
        try:
            if tell(turn.exception()):
                self._decodings[decoding] = tell
        finally:  # whatever becomes of one, the others have their turn
            self._decode_on()
