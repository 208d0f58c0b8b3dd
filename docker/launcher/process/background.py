"""Runs work that may block (on a disk, a lock) in a thread, so that process 1 still handles signals and orphans."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from launcher.process.init import CancelledError, Init

_Done = TypeVar("_Done")


def run(init: Init, work: Callable[[], _Done]) -> _Done:
    """Run `work` in a thread and return or raise what it does. Raises `CancelledError` at once on a stop signal, and
    leaves the thread to itself, to end with the process. `Supervisor` finds weights and claims GPUs this way."""
    outcome: Future[_Done] = Future()
    thread = threading.Thread(target=_do, args=(work, outcome, init), name="background", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the container has no thread left: run it here, although it may block
        return work()
    while not outcome.done():
        if init.stopping:
            raise CancelledError
        init.wait(None)
    return outcome.result()


def _do(work: Callable[[], _Done], outcome: Future[_Done], init: Init) -> None:
    """Run in the thread: do the work, and put its result or error into `outcome` before `run` is woken."""
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 - `run` raises it in the main thread
        outcome.set_exception(error)
    init.wake()
