"""Warms up a vLLM that has just started, so that the first client's request is not slow. vLLM compiles kernels,
allocates buffers and loads parsers at first use. So the launcher sends what clients will send: a short prompt and a
long one, greedy and sampled tokens for 1 to 32 requests at once, a tool call, an image. A refusal is logged and does no
harm. When the time is up, open requests are closed at the next sign of life (`signs_of_life`); without one for
`hang_after_s`, vLLM stands still. Runs in the supervisor's loop and never blocks."""

import base64
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from launcher.engine.question import KEY_HEADER, OK, Question
from launcher.engine.signs_of_life import SignsOfLife
from launcher.settings import Capability


@dataclass(frozen=True)
class Step:
    """Chat requests (bodies as JSON objects) that are sent at the same time; `name` is for the log."""

    name: str
    requests: tuple[dict[str, object], ...]


TOGETHER = (1, 2, 4, 8, 16, 32)  # requests that one step sends at the same time
_TOKENS = 8  # that an answer has
_CALL_TOKENS = 64  # that a tool call may have
_LONG_WORDS = 1500  # of the long prompt
_IMAGE_PIXELS = 224  # width and height
_EVERY_S = 0.5  # longest time between two calls of `tick`
_MAX_QUOTED = 200  # characters of an answer in the log
_REFUSED = range(400, 500)  # statuses that vLLM does not count as finished requests
_SAMPLED = {"temperature": 0.8, "top_p": 0.95, "top_k": 20}
_TOOL = {
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
    """Return the steps for a model with these capabilities (`LAUNCHER_WARMS`), in the order to take them. Pure."""
    return tuple(step for one in Capability if one in capabilities for step in _PLANS[one]())


def _text() -> Iterator[Step]:
    """Yield the steps of a text model: short and long prompts, then many at once, half of them sampled."""
    yield Step("short prompt", (_chat("Hello", stream=True),))
    yield Step("long prompt", (_chat("Read this. " + " ".join(map(str, range(_LONG_WORDS)))),))
    for count in TOGETHER:
        # different prompts, so that the prefix cache does not make them one
        texts = (f"{count} of {number}: count on" for number in range(count))
        yield Step(
            f"{count} at once",
            tuple(_chat(text, **(_SAMPLED if at % 2 else {})) for at, text in enumerate(texts)),
        )


def _tools() -> Iterator[Step]:
    """Yield the steps that load the tool parser: a tool that the model may call, and one that it must call."""
    question = "What time is it in Beijing?"
    yield Step("tool call", (_chat(question, tools=[_TOOL], tool_choice="auto", stream=True),))
    named = {"type": "function", "function": {"name": "get_time"}}
    # enough tokens for a complete call: vLLM logs a traceback for one that is cut off
    call = _chat(question, tools=[_TOOL], tool_choice=named, max_tokens=_CALL_TOKENS, ignore_eos=False)
    yield Step("named tool call", (call,))


def _images() -> Iterator[Step]:
    """Yield the step that loads the image processor, with an image in the request itself: workers have no internet."""
    url = "data:image/png;base64," + base64.b64encode(_png()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is this?"}]
    yield Step("image", (_chat(content),))


_PLANS: dict[Capability, Callable[[], Iterator[Step]]] = {
    Capability.TEXT: _text,
    Capability.TOOLS: _tools,
    Capability.IMAGES: _images,
}


def _chat(content: object, **more: object) -> dict[str, object]:
    """Return the body of a chat request for a fixed number of greedy tokens; `more` adds or replaces members."""
    message = {"role": "user", "content": content}
    return {"messages": [message], "max_tokens": _TOKENS, "temperature": 0, "ignore_eos": True, **more}


def _png() -> bytes:
    """Return a grey square as a PNG file; made here, since the launcher has the standard library only."""
    rows = (b"\0" + b"\x80" * _IMAGE_PIXELS) * _IMAGE_PIXELS  # a row begins with its filter, 0 for none
    header = struct.pack(">IIBBBBB", _IMAGE_PIXELS, _IMAGE_PIXELS, 8, 0, 0, 0, 0)  # 8 bits, one channel
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class Warming:
    """The warm-up of one run of vLLM: takes one step after the other; the supervisor calls `tick` until `over`. `own`
    is how many of its requests vLLM may count as finished. `done` has the names of the steps that succeeded, `problems`
    a line for each that did not; both are for the log."""

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
        """Ask nothing yet. `port` is on 127.0.0.1; `key` gets the requests past `admission`; `limit_s` is the time for
        all steps. `standstill` is reported after `hang_after_s` without a sign of life; 0 means never."""
        self._port = port
        self._key = key
        self._steps = list(steps)  # those that have not begun
        self._clock = clock
        self._until = clock() + limit_s
        self._hang_after_s = hang_after_s
        self._signs = SignsOfLife(port, clock)
        self._step: Step | None = None
        self._began = clock()  # this step
        self._asked: list[Question] = []  # this step's requests
        self._answers_before = self._answers_now = 0  # requests answered in earlier steps, and in this one
        self.own = 0
        self.done: list[str] = []
        self.problems: list[str] = []

    @property
    def over(self) -> bool:
        """Whether all steps have ended, or were given up as the time was up and no request is open."""
        return not self._steps and self._step is None

    @property
    def standstill(self) -> str | None:
        """One line for the log if the time is up and vLLM has shown no sign of life for `hang_after_s`; else None."""
        if self._step is None or not self._is_late or not self._may_stand_still:
            return None
        if self._signs.quiet_s < self._hang_after_s:
            return None
        return (
            f"the launcher's own requests ({self._step.name}) are not answered; generation tokens, prompt tokens, "
            f"KV use and finished requests have not changed for {self._signs.quiet_s:.0f} s"
        )

    @property
    def answers(self) -> int:
        """How many requests got a complete answer, with any status. `Supervisor._give_up_warm_up` asks for it."""
        return self._answers_before + self._answers_now

    def readers(self) -> Iterator[int]:
        """Yield the descriptors of open requests, for the caller to wait on."""
        yield from (question.fileno() for question in self._open())
        yield from self._signs.readers()

    def tick(self) -> None:
        """Read what has arrived, and begin the next step once this one is complete. Once the time is up, fail the open
        requests: if `standstill` may be found, only after a later sign of life, else at once."""
        self._read_answers()
        if self._is_late and (self._signs.sign_at >= self._until or not self._may_stand_still):
            for question in self._open():
                question.fail(f"no answer within {self._clock() - self._began:.1f} s")
        if self._step and all(question.over for question in self._asked):
            self._finish_step(self._step)
            self._step, self._asked = None, []
        if self._step is None and self._steps:
            self._begin_step()

    def close(self) -> None:
        """Close all open requests, which vLLM then aborts; called at the end, also of a warm-up that was broken off."""
        for question in self._open():
            question.close()
        self._signs.close()

    @property
    def _is_late(self) -> bool:
        """Whether the time for all steps is up."""
        return self._clock() >= self._until

    @property
    def _may_stand_still(self) -> bool:
        """Whether a standstill is looked for at all (`hang_after_s`), and /metrics can be read to tell one."""
        return self._hang_after_s > 0 and self._signs.can_tell

    def _open(self) -> list[Question]:
        """Return the requests of this step that have not ended."""
        return [question for question in self._asked if not question.over]

    def _read_answers(self) -> None:
        """Read what has arrived; note a sign of life if another answer is complete or /metrics has changed."""
        for question in self._open():
            question.pump()
        self._signs.tick()
        answered = sum(question.status is not None for question in self._asked)
        if answered > self._answers_now:
            self._answers_now = answered
            self._signs.note_sign()

    def _begin_step(self) -> None:
        """Send the next step's requests all at once; if the time is up, note all steps left as a problem instead."""
        if self._is_late:
            self.problems.append(f"no time was left for: {', '.join(step.name for step in self._steps)}")
            self._steps = []
            return
        self._step, self._began = self._steps.pop(0), self._clock()
        self._asked = [Question(self._port, self._request(request)) for request in self._step.requests]

    def _finish_step(self, step: Step) -> None:
        """Count the answers of a complete step, and add its name to `done` or its first problem to `problems`. A
        request that got no answer counts in `own` too, since vLLM may have finished it."""
        self._answers_before, self._answers_now = self.answers, 0
        self.own += sum(question.status not in _REFUSED for question in self._asked)
        if problem := next(filter(None, map(_problem, self._asked)), None):
            self.problems.append(f"{step.name}: {problem}")
        else:
            self.done.append(step.name)

    def _request(self, request: dict[str, object]) -> bytes:
        """Return the bytes of a request that `admission` lets in; the connection ends with the answer (HTTP/1.0)."""
        body = json.dumps(request).encode()
        head = b"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return b"%s%s: %s\r\nContent-Length: %d\r\n\r\n%s" % (head, KEY_HEADER, self._key, len(body), body)


def _problem(question: Question) -> str | None:
    """Return why a finished request failed, or the status and the beginning of an answer other than 200; else None."""
    if question.problem or question.status == OK:
        return question.problem
    said = " ".join(question.content.decode("utf-8", "replace").split())
    return f"{question.status or 'no HTTP'} {said[:_MAX_QUOTED]}".strip()
