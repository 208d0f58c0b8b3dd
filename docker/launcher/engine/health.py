"""Whether vLLM's `/health` answers 200: for the container's health check, and for the launcher while vLLM starts."""

import math
import select
import time
from collections.abc import Callable, Iterator

from launcher.engine import question
from launcher.engine.question import OK, Question

_EVERY_S = 1.0
_TICK_S = 0.25  # a request that could not be sent at once is sent a moment later


def problem(port: int, timeout_s: float) -> str | None:
    """None if vLLM on 127.0.0.1:`port` answers 200 in time, else what it did instead, in a few words."""
    asked = Question(port, question.health(), timeout_s)
    while not asked.over:
        poll = select.poll()
        poll.register(asked, select.POLLIN)
        poll.poll(math.ceil(min(max(asked.left_s or 0.0, 0.0), _TICK_S) * 1000))
        asked.pump()
    return judge(asked)


def judge(asked: Question) -> str | None:
    """What is wrong with the answer; None if nothing is."""
    if asked.problem or asked.status == OK:
        return asked.problem
    return f"/health answers {asked.status}" if asked.status else "not HTTP"


class HealthPoll:
    """Polls without blocking: an answer that is not complete within a second counts as none."""

    every_s = _EVERY_S

    def __init__(
        self, port: int, key: bytes | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`port` of 127.0.0.1; `key` where only the launcher is let in."""
        self._port = port
        self._words = question.health(key)
        self._clock = clock
        self._next = clock()
        self._question: Question | None = None

    def readers(self) -> Iterator[int]:
        """The descriptor of an open question."""
        if self._question and not self._question.over:
            yield self._question.fileno()

    def is_answered(self) -> bool:
        """Whether vLLM has answered 200; asks again when it is time."""
        if self._question:
            self._question.pump()
        if self._question and self._question.over:
            answer, self._question = judge(self._question), None
            return answer is None
        if self._question is None and self._clock() >= self._next:
            self._next = self._clock() + _EVERY_S
            self._question = Question(self._port, self._words, _EVERY_S, self._clock)
        return False

    def close(self) -> None:
        """Close what is open."""
        if self._question:
            self._question.close()
