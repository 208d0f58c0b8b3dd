"""What vLLM says of itself at /metrics, and whether it gets anywhere. Pure.

The gateway and the launcher each have this file, word for word (a test compares the two): what keeps a stream alive in
one program can then not be a standstill in the other.

`/health` cannot tell: vLLM's server answers it while its engine stands still. Progress is any change of generated
tokens, prompt tokens, KV use or finished requests. A lone prefill of 256k tokens changes the KV use with each of its
parts, and a first request may compile for minutes: no standstill counts before a client's first request has finished,
nor of an engine that was put to sleep. How many had finished before any client's, the caller has to say (`before`): the
launcher knows how many it warmed with, the gateway what it found when it first looked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

RUNNING, WAITING = b"vllm:num_requests_running", b"vllm:num_requests_waiting"
KV_USE, FINISHED = b"vllm:kv_cache_usage_perc", b"vllm:request_success_total"
TOKENS: Final = (b"vllm:generation_tokens_total", b"vllm:prompt_tokens_total")
SLEEP, AWAKE = b"vllm:engine_sleep_state", b'sleep_state="awake"'
MOST_SAMPLES: Final = 1024  # of one metric: 64 engines have 320 of the one with the most
MOST_LINE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Vitals:
    """One reading, over all engines of the worker. `marks`: the numbers of which one changes with any progress."""

    running: float = 0.0
    waiting: float = 0.0
    kv_use: float = 0.0  # of the fullest engine, 0 to 1
    finished: float = 0.0
    before: float = 0.0  # of the finished: those that were no client's; vLLM does not say
    asleep: float = 0.0  # above 0: put to sleep
    marks: tuple[float, ...] = ()

    @property
    def is_busy(self) -> bool:
        """Whether requests are in the engine, by its own account."""
        return self.running + self.waiting > 0

    @property
    def tells(self) -> bool:
        """Whether standing still means anything: a client's request has finished, and nobody put it to sleep."""
        return self.finished > self.before and not self.asleep

    def moved_since(self, before: Vitals) -> bool:
        """Whether there was progress between two readings."""
        return self.marks != before.marks

    def stood_still_since(self, before: Vitals) -> bool:
        """Whether there was none, and that means something. Whether it had any work is for the caller to say."""
        return self.tells and before.tells and self.marks == before.marks


def read_vitals(page: bytes) -> Vitals | None:
    """Reads vLLM's /metrics in Prometheus' text format; None if it does not say how many requests run."""
    running, kv_use, finished = samples(page, RUNNING), samples(page, KV_USE), samples(page, FINISHED)
    if not running:
        return None
    marks = [*(value for name in TOKENS for value in samples(page, name)), *kv_use, *finished]
    return Vitals(
        running=sum(running),
        waiting=sum(samples(page, WAITING)),
        kv_use=max(kv_use, default=0.0),
        finished=sum(finished),
        asleep=sum(numbers(line for line in lines(page, SLEEP) if AWAKE not in line)),
        marks=tuple(marks),
    )


def samples(page: bytes, name: bytes) -> list[float]:
    """The finite values of one metric, in their order."""
    return numbers(lines(page, name))


def numbers(of: Iterator[bytes]) -> list[float]:
    return [value for value in map(number, of) if math.isfinite(value)]


def lines(page: bytes, name: bytes) -> Iterator[bytes]:
    """The lines that are samples of `name`. They stand together, so what follows them is not searched: most of a page's
    100 KB are other metrics'."""
    at = first(page, name)
    for _ in range(MOST_SAMPLES):
        if not is_sample(page, name, at):
            return
        end = page.find(b"\n", at)
        line = page[at : end if end >= 0 else len(page)]
        yield line
        at += len(line) + 1


def first(page: bytes, name: bytes) -> int:
    """Where the first sample of `name` begins; the page's length if there is none, or too much like it before."""
    at = 0
    for _ in range(MOST_SAMPLES):
        if is_sample(page, name, at):
            return at
        at = page.find(b"\n" + name, at) + 1
        if not at:
            break
    return len(page)


def is_sample(page: bytes, name: bytes, at: int) -> bool:
    return page.startswith(name, at) and page[at + len(name) : at + len(name) + 1] in (b"{", b" ")


def number(line: bytes) -> float:
    """A sample's value, behind its labels; NaN if it has none. vLLM writes no timestamps."""
    if len(line) > MOST_LINE_BYTES:
        return math.nan
    try:
        return float(line.rpartition(b" ")[2])
    except ValueError:
        return math.nan
