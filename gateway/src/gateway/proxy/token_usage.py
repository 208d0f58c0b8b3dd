"""What a request used, as its worker tells it: read from the bytes of an answer, without a JSON parser. Pure.

An answer tells it at its end. A stream that is broken off has no end, so for a request of an API key the worker is
asked to tell it in each chunk (`continuous_usage_stats`), and a `Meter` keeps the last of each choice. vLLM 0.32 tells
none before the end of a Responses stream, and only the prompt's tokens in Anthropic's first event: there the events
that bring text are counted. Cached tokens are told at the end alone."""

import re
from typing import Final

USAGE_KEY: Final = b'"usage"'
USAGE: Final = re.compile(USAGE_KEY + rb"\s*:\s*\{")
USAGE_NAME: Final = re.compile(USAGE_KEY + rb"\s*:")
PROMPT: Final = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*([0-9]{1,12})')
COMPLETION: Final = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*([0-9]{1,12})')
CACHED: Final = re.compile(rb'"(?:cached_tokens|cache_read_input_tokens)"\s*:\s*([0-9]{1,12})')
# Anthropic's `input_tokens` are those that were neither read from the cache nor written to it.
BESIDE_INPUT: Final = re.compile(rb'"cache_(?:read|creation)_input_tokens"\s*:\s*([0-9]{1,12})')
CHOICE: Final = re.compile(rb'"choices"\s*:\s*\[\s*\{\s*"index"\s*:\s*([0-9]{1,6})')
USAGE_BYTES: Final = 1024  # that a usage has at most
# An event as vLLM writes it: of one choice, with the usage as its last member, which has names and numbers.
MEMBER: Final = b',"usage":{'
ONE_CHOICE: Final = b'"choices":[{"index":'
ENDS: Final = (b"}}\n\n", b"}}}\n\n")
Tokens = tuple[int, int, int]  # the prompt's, the completion's, and those of the prompt's that were cached


class Meter:
    """What one stream has told of its usage so far. n: choices that the client wants for each prompt; mark: what an
    event has that brings text, where no usage is told with it, else b""."""

    def __init__(self, n: int = 1, mark: bytes = b"") -> None:
        self.mark = mark
        self._usage_from_end = 1 << 30  # where the last event had its usage, which changes little
        self._choice_at = 0  # and its choice
        self._n = max(n, 1)
        self._events = 0  # that brought text
        self._first: bytes | None = None  # the last event of the first choice, which is often the only one
        self._others: dict[int, bytes] = {}  # the last usage of each other choice
        self._told: bytes | None = None  # a usage that is no choice's, of an answer's end or first event

    def cut(self, event: bytes) -> bytes:
        """Return one event of one choice without its usage, which is noted; b"" for anything else, which must be read.
        Costs half a microsecond: each is looked for where the event before had it."""
        size = len(event)
        at = size - self._usage_from_end
        if at < 0 or event[at : at + len(MEMBER)] != MEMBER:
            at = event.rfind(MEMBER)
            if at < 0:
                return b""
            self._usage_from_end = size - at
        if event[event.find(b"}", at) :] not in ENDS or event.find(b"\n") != size - 2:
            return b""
        if not event.startswith(ONE_CHOICE, self._choice_at):
            self._choice_at = max(event.find(ONE_CHOICE, 0, at), 0)
            if self._choice_at == 0:
                return b""
        start = self._choice_at + len(ONE_CHOICE)
        if event.startswith(b"0,", start):
            self._first = event
        else:
            index = event[start : event.find(b",", start)]
            if not index.isdigit():
                return b""
            self._others[int(index)] = event[at:]
        return event[:at] + b"}\n\n"

    def read(self, data: bytes) -> None:
        """Note each usage and each mark in whole events, or in the only one that is not whole."""
        if self.mark:
            self._events += data.count(self.mark)
        if USAGE_KEY not in data:
            return
        for line in data.split(b"\n"):
            usage = last_usage(line)
            if usage is None:
                continue
            choice = CHOICE.search(line)
            if choice is None:
                self._told = usage
            elif int(choice[1]) == 0:
                self._first = usage
            else:
                self._others[int(choice[1])] = usage

    def tokens(self, whole: bool) -> Tokens | None:
        """Return what the stream has used. whole: its end has come, and so has the usage at its end, if it has one.
        Anthropic's first event tells no completion."""
        told = tokens_in(self._told) if self._told is not None else None
        if told is not None and (whole or told[1]):
            return told
        if self._first is not None or self._others:
            return self._of_choices()
        if told is None:
            return (0, self._events, 0) if self._events else None
        return told[0], self._events, told[2]

    def _of_choices(self) -> Tokens:
        """Return the sum over the choices. Each of a prompt's choices tells the same prompt."""
        last = dict(self._others)
        if self._first is not None:
            last[0] = self._first
        prompts: dict[int, int] = {}
        completion = 0
        for index, event in last.items():
            found = tokens_in(event)
            if found is not None:
                prompts[index // self._n] = found[0]
                completion += found[1]
        return sum(prompts.values()), completion, 0


def last_usage(data: bytes) -> bytes | None:
    """Return the last usage in `data`, with what follows it, or None if that is null: an object before it may be the
    client's, such as a tool's parameter `usage`, which a Responses stream repeats in its first events."""
    at = data.rfind(USAGE_KEY)
    while at >= 0 and USAGE_NAME.match(data, at) is None:
        at = data.rfind(USAGE_KEY, 0, at)
    return data[at : at + USAGE_BYTES] if at >= 0 and USAGE.match(data, at) is not None else None


def tokens_in(data: bytes) -> Tokens | None:
    """Return the last usage in `data`, in OpenAI's names or Anthropic's, or None. Embeddings have no completion: 0."""
    usage = last_usage(data)
    if usage is None:
        return None
    prompt, completion, cached = PROMPT.search(usage), COMPLETION.search(usage), CACHED.search(usage)
    if prompt is None:
        return None
    beside = sum([int(found) for found in BESIDE_INPUT.findall(usage)])
    return (
        int(prompt[1]) + beside,
        int(completion[1]) if completion is not None else 0,
        int(cached[1]) if cached is not None else 0,
    )
