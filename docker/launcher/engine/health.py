"""Asks vLLM's `/health`: once for the container's health check (`check`), or each second of a start (`HealthPoll`)."""

import math
import select
import time
from collections.abc import Callable, Iterator

from launcher.engine import question
from launcher.engine.question import OK, Question

_EVERY_S = 1.0  # between two polls, and the time that one may take
_RETRY_S = 0.25  # between two tries of `check` to send, while it still connects: it waits for input only


def check(port: int, timeout_s: float) -> str | None:
    """Ask vLLM on 127.0.0.1:`port` once, for `timeout_s` at most. Return None if it answers 200, else what is wrong."""
    asked = Question(port, question.health_request(), timeout_s)
    while not asked.over:
        poll = select.poll()
        poll.register(asked, select.POLLIN)
        poll.poll(math.ceil(min(max(asked.left_s or 0.0, 0.0), _RETRY_S) * 1000))
        asked.pump()
    return _problem_in(asked)


def _problem_in(asked: Question) -> str | None:
    """Return in a few words what is wrong with a finished request to /health; None if its status is 200."""
    if asked.problem or asked.status == OK:
        return asked.problem
    return f"/health answers {asked.status}" if asked.status else "not HTTP"


class HealthPoll:
    """Asks /health once a second without blocking; a request that takes longer has failed. The supervisor has one for
    each start of vLLM, and calls `tick` when `every_s` seconds have passed or one of `readers` is readable."""

    every_s = _EVERY_S

    def __init__(
        self, port: int, key: bytes | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Ask nothing yet. `port` is on 127.0.0.1; `key` goes along if only the launcher is let in (warm-up)."""
        self._port = port
        self._request = question.health_request(key)
        self._clock = clock
        self._next = clock()
        self._question: Question | None = None

    def readers(self) -> Iterator[int]:
        """Yield the descriptor of the open request, if there is one, for the caller to wait on."""
        if self._question and not self._question.over:
            yield self._question.fileno()

    def tick(self) -> bool:
        """Read what has arrived, ask again when it is due. Return True if an answer with status 200 is now complete."""
        if self._question:
            self._question.pump()
        if self._question and self._question.over:
            problem, self._question = _problem_in(self._question), None
            return problem is None
        if self._question is None and self._clock() >= self._next:
            self._next = self._clock() + _EVERY_S
            self._question = Question(self._port, self._request, _EVERY_S, self._clock)
        return False

    def close(self) -> None:
        """Close the open request, if there is one: vLLM is ready or has ended, or the launcher is told to stop."""
        if self._question:
            self._question.close()
