"""Join and decode large bodies in a thread, in short turns, so that no other request waits for one."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from gateway.body.content_coding import Decoding

OnTurn = Callable[[BaseException | None], bool]  # see `Offload.decode`


class Offload:
    """The decoding thread and the bodies that wait for it; one per process. Its methods run on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode")
        self._decodings: OrderedDict[Decoding, OnTurn] = OrderedDict()  # those that wait for their next turn
        self._is_decoding = False

    def decode(self, decoding: Decoding, on_turn: OnTurn) -> None:
        """Decode a body in the thread, in turns with others. After each turn `on_turn` is called on the event loop with
        the turn's error or None; it returns whether there is to be another turn."""
        self._decodings[decoding] = on_turn
        if not self._is_decoding:
            self._start_turn()

    def forget(self, decoding: Decoding) -> None:
        """Give the body no more turns: its request has ended. A turn that runs now still calls `on_turn`."""
        self._decodings.pop(decoding, None)

    def _start_turn(self) -> None:
        """Start the turn of the body that has waited longest, if one waits and the thread is free."""
        while self._decodings and not self._is_decoding:
            decoding, on_turn = self._decodings.popitem(last=False)
            try:
                turn = self._loop.run_in_executor(self._executor, decoding.advance)
            except RuntimeError as fault:  # from Thread.start: no thread can be started
                on_turn(fault)  # which ends the request: it wants no more turns
                continue
            self._is_decoding = True
            turn.add_done_callback(partial(self._turn_done, decoding, on_turn))

    def _turn_done(self, decoding: Decoding, on_turn: OnTurn, turn: asyncio.Future[None]) -> None:
        """Tell the body's owner that a turn is over, and start the next one. The event loop calls it."""
        self._is_decoding = False
        try:
            if on_turn(turn.exception()):
                self._decodings[decoding] = on_turn  # at the end of the queue
        finally:  # the others get their turns even if this one raises
            self._start_turn()
