"""Watches a vLLM that is ready: polls its /metrics in the supervisor's loop, and reports a standstill."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from launcher.engine.engine_metrics import EngineMetrics, read_metrics
from launcher.engine.question import METRICS_REQUEST, TOKEN_REQUEST, Question
from launcher.engine.stall_detector import StallDetector

_POLLS_PER_LIMIT = 10  # so that a standstill is found about a tenth of the limit late at most
_MAX_BETWEEN_S = 5.0  # longest time between two polls


class Watch:
    """Polls one run of vLLM without blocking; the supervisor calls `tick` and ends vLLM if `standstill` is not None.
    `is_unreadable` is True once /metrics was too large; while it is, no standstill can be found."""

    def __init__(self, port: int, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask nothing yet. A `limit_s` of 0 turns the watch off; `clock` counts seconds and never goes back."""
        self._port = port
        self._clock = clock
        self._every_s = min(limit_s / _POLLS_PER_LIMIT, _MAX_BETWEEN_S)
        self._detector = StallDetector(limit_s, self._every_s, clock())
        self._next = clock()  # when the next poll is due
        self._metrics: Question | None = None  # until its answer is read, or the next poll if it failed
        self._token: Question | None = None  # the latest request for one token
        self.is_unreadable = False

    @property
    def every_s(self) -> float | None:
        """Seconds between two polls; None if the watch is off."""
        return self._every_s or None

    @property
    def standstill(self) -> str | None:
        """What has not changed for `limit_s`, as a sentence for the log; None if all is well or the watch is off."""
        return self._detector.standstill if self._every_s else None  # 0 s would be over at once

    def readers(self) -> Iterator[int]:
        """Return the descriptors of open requests, for the caller to wait on."""
        return (question.fileno() for question in self._open())

    def leave_out(self, count: int) -> None:
        """Leave `count` warm-up requests out of vLLM's finished ones: no standstill counts before a client's first."""
        self._detector = replace(self._detector, own=count)

    def tick(self) -> None:
        """Read what has arrived; poll again when it is due."""
        for question in self._open():
            question.pump()
        self._read_answers()
        if self._every_s and (now := self._clock()) >= self._next:
            self._next = now + self._every_s
            self._send_questions(now)

    def close(self) -> None:
        """Close the open requests; vLLM has ended or is told to stop."""
        for question in self._open():
            question.close()

    def _open(self) -> list[Question]:
        """Return the requests, for /metrics and for a token, that have not ended."""
        return [question for question in (self._metrics, self._token) if question and not question.over]

    def _read_answers(self) -> None:
        """Hand a complete answer of /metrics to the detector; one too large or not vLLM's ends any standstill."""
        if self._metrics and self._metrics.too_large:  # vLLM is alive, but nothing can be compared
            self.is_unreadable = True
            self._detector, self._metrics = self._detector.after_answer(EngineMetrics(), self._clock()), None
        elif self._metrics and (page := self._metrics.body) is not None:
            asked = self._token is not None and not self._token.over
            self._detector = self._detector.after_answer(
                read_metrics(page) or EngineMetrics(), self._clock(), asked=asked
            )
            self._metrics = None

    def _send_questions(self, now: float) -> None:
        """Ask for /metrics, unless the question before is still open; that, or one that failed, counts as unanswered.
        Ask for one token when the detector wants it."""
        if self._metrics:
            self._detector = self._detector.after_no_answer(now)
        if self._metrics is None or self._metrics.over:
            self._metrics = Question(self._port, METRICS_REQUEST)
        if self._detector.needs_token:
            self._token, self._detector = Question(self._port, TOKEN_REQUEST), self._detector.after_asking()
