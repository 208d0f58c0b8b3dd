"""Warms up a vLLM that has just started, so that the first client's request is not slow.

vLLM compiles kernels, allocates buffers and loads parsers at first use. So the launcher sends what clients will send: a
short prompt and a long one, greedy and sampled tokens for 1 to 32 requests at once, a tool call, an image. A refusal is
logged and does no harm. When the time is up, open requests are broken off at the next sign of life (`signs_of_life`); a
vLLM that gives no sign for long is a standstill.
"""

import base64
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from launcher.engine.question import HEADER, OK, Question
from launcher.engine.signs_of_life import SignsOfLife
from launcher.settings import Capability


@dataclass(frozen=True)
class Step:
    """Chat requests that are sent together."""

    name: str
    requests: tuple[dict[str, object], ...]


TOGETHER = (1, 2, 4, 8, 16, 32)
_TOKENS = 8
_CALL_TOKENS = 64
_LONG_WORDS = 1500
_SIDE = 224
_EVERY_S = 0.5
_SHOWN = 200
_REFUSED = range(400, 500)
_SAMPLED = {"temperature": 0.8, "top_p": 0.95, "top_k": 20}
_TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time at a place",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "enum": ["Beijing"]}},  # so that a call ends
            "required": ["place"],
        },
    },
}


def plan(capabilities: Sequence[Capability]) -> tuple[Step, ...]:
    """The steps for a model with these capabilities. Pure."""
    return tuple(step for one in Capability if one in capabilities for step in _PLANS[one]())


def _text() -> Iterator[Step]:
    yield Step("short prompt", (_chat("Hello", stream=True),))
    yield Step("long prompt", (_chat("Read this. " + " ".join(map(str, range(_LONG_WORDS)))),))
    for count in TOGETHER:
        # each of its own, so that no cache of prompts makes them one
        texts = (f"{count} of {number}: count on" for number in range(count))
        yield Step(
            f"{count} at once",
            tuple(_chat(text, **(_SAMPLED if at % 2 else {})) for at, text in enumerate(texts)),
        )


def _tools() -> Iterator[Step]:
    question = "What time is it in Beijing?"
    yield Step("tool call", (_chat(question, tools=[_TIME], tool_choice="auto", stream=True),))
    named = {"type": "function", "function": {"name": "get_time"}}
    # with room to end by itself: vLLM logs a traceback for a call that is cut off
    call = _chat(question, tools=[_TIME], tool_choice=named, max_tokens=_CALL_TOKENS, ignore_eos=False)
    yield Step("named tool call", (call,))


def _images() -> Iterator[Step]:
    url = "data:image/png;base64," + base64.b64encode(_png()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is this?"}]
    yield Step("image", (_chat(content),))


_PLANS: dict[Capability, Callable[[], Iterator[Step]]] = {
    Capability.TEXT: _text,
    Capability.TOOLS: _tools,
    Capability.IMAGES: _images,
}


def _chat(content: object, **more: object) -> dict[str, object]:
    message = {"role": "user", "content": content}
    return {"messages": [message], "max_tokens": _TOKENS, "temperature": 0, "ignore_eos": True, **more}


def _png() -> bytes:
    """A grey square."""
    rows = (b"\0" + b"\x80" * _SIDE) * _SIDE
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class Warming:
    """Takes one step after the other without blocking; `over` after the last one, or when its time is up.

    `own` is how many of its requests vLLM may count as finished.
    """

    every_s = _EVERY_S

    def __init__(
        self,
        port: int,
        key: bytes,
        steps: Sequence[Step],
        limit_s: float,
        hang_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`port` of 127.0.0.1; `key` admits its requests; a `hang_after_s` of 0 means that nothing is a standstill."""
        self._port = port
        self._key = key
        self._steps = list(steps)
        self._clock = clock
        self._until = clock() + limit_s
        self._hang_after_s = hang_after_s
        self._life = SignsOfLife(port, clock)
        self._step: Step | None = None
        self._began = clock()
        self._asked: list[Question] = []
        self._answers = self._answered = 0  # in the steps before, in this one
        self.own = 0
        self.done: list[str] = []
        self.problems: list[str] = []

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return not self._steps and self._step is None

    @property
    def standstill(self) -> str | None:
        """One line on what is unanswered after the time is up, and for how long nothing has moved; else None."""
        if self._step is None or not self._is_late or not self._may_stand_still:
            return None
        if self._life.quiet_s < self._hang_after_s:
            return None
        return (
            f"the launcher's own requests ({self._step.name}) are not answered; generation tokens, prompt tokens, "
            f"KV use and finished requests have not changed for {self._life.quiet_s:.0f} s"
        )

    @property
    def answers(self) -> int:
        """How many requests were answered completely, with any status."""
        return self._answers + self._answered

    def readers(self) -> Iterator[int]:
        """The descriptors of open requests."""
        yield from (question.fileno() for question in self._open())
        yield from self._life.readers()

    def look(self) -> None:
        """Read what has arrived; begin the next step once this one is complete."""
        self._hear()
        if self._is_late and (self._life.last >= self._until or not self._may_stand_still):
            for question in self._open():
                question.fail(f"no answer within {self._clock() - self._began:.1f} s")
        if self._step and all(question.over for question in self._asked):
            self._judge(self._step)
            self._step, self._asked = None, []
        if self._step is None and self._steps:
            self._begin()

    def close(self) -> None:
        """Close what is open; vLLM then aborts it."""
        for question in self._open():
            question.close()
        self._life.close()

    @property
    def _is_late(self) -> bool:
        return self._clock() >= self._until

    @property
    def _may_stand_still(self) -> bool:
        return self._hang_after_s > 0 and self._life.can_tell

    def _open(self) -> list[Question]:
        return [question for question in self._asked if not question.over]

    def _hear(self) -> None:
        for question in self._open():
            question.pump()
        self._life.look()
        answered = sum(question.status is not None for question in self._asked)
        if answered > self._answered:
            self._answered = answered
            self._life.note()

    def _begin(self) -> None:
        if self._is_late:
            self.problems.append(f"no time was left for: {', '.join(step.name for step in self._steps)}")
            self._steps = []
            return
        self._step, self._began = self._steps.pop(0), self._clock()
        self._asked = [Question(self._port, self._words(request)) for request in self._step.requests]

    def _judge(self, step: Step) -> None:
        self._answers, self._answered = self.answers, 0
        self.own += sum(question.status not in _REFUSED for question in self._asked)
        if problem := next(filter(None, map(_problem, self._asked)), None):
            self.problems.append(f"{step.name}: {problem}")
        else:
            self.done.append(step.name)

    def _words(self, request: dict[str, object]) -> bytes:
        body = json.dumps(request).encode()
        head = b"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return b"%s%s: %s\r\nContent-Length: %d\r\n\r\n%s" % (head, HEADER, self._key, len(body), body)


def _problem(question: Question) -> str | None:
    if question.problem or question.status == OK:
        return question.problem
    said = " ".join(question.content.decode("utf-8", "replace").split())
    return f"{question.status or 'no HTTP'} {said[:_SHOWN]}".strip()
