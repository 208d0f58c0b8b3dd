"""Work that may block (a disk, a lock, another process), run in a thread while process 1 stays responsive."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from launcher.process.init import CancelledError, Init

_Done = TypeVar("_Done")


def run(init: Init, work: Callable[[], _Done]) -> _Done:
    """What `work` returns or raises. A stop signal raises `CancelledError` at once; the thread is abandoned."""
    outcome: Future[_Done] = Future()
    thread = threading.Thread(target=_do, args=(work, outcome, init), name="background", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread is left in this container: better blocking than not at all
        return work()
    while not outcome.done():
        if init.stopping:
            raise CancelledError
        init.wait(None)
    return outcome.result()


def _do(work: Callable[[], _Done], outcome: Future[_Done], init: Init) -> None:
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        outcome.set_exception(error)
    init.wake()
