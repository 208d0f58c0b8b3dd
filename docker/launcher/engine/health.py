"""Does vLLM's `/health` answer 200? Asked by the container's health check, and by the launcher while vLLM starts."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Iterator

from launcher.engine import question as ask
from launcher.engine.question import OK, Question

_EVERY_S = 1.0
_TICK_S = 0.25  # a question that could not be sent at once is sent a moment later


def problem(port: int, timeout_s: float) -> str | None:
    """None if vLLM on 127.0.0.1:`port` answers 200 in time, else what it did instead, in a few words."""
    question = Question(port, ask.health(), timeout_s)
    while not question.over:
        poll = select.poll()
        poll.register(question, select.POLLIN)
        poll.poll(math.ceil(min(max(question.left_s or 0.0, 0.0), _TICK_S) * 1000))
        question.pump()
    return judge(question)


def judge(question: Question) -> str | None:
    """What is wrong with the answer; None if nothing is."""
    if question.problem or question.status == OK:
        return question.problem
    return f"/health answers {question.status}" if question.status else "not HTTP"


class Knock:
    """Asks again and again, never waits: an answer that does not come whole within a second is none."""

    every_s = _EVERY_S

    def __init__(
        self, port: int, key: bytes | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`port` of 127.0.0.1; `key` where others are not let in yet."""
        self._port = port
        self._words = ask.health(key)
        self._clock = clock
        self._next = clock()
        self._question: Question | None = None

    def readers(self) -> Iterator[int]:
        """The descriptor of an open question."""
        if self._question and not self._question.over:
            yield self._question.fileno()

    def is_answered(self) -> bool:
        """Whether vLLM has said that it serves; asks anew where it is time for that."""
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
        """Ask no further."""
        if self._question:
            self._question.close()
