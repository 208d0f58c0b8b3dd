"""What vLLM says of itself at /metrics, and whether it gets anywhere. Pure.

The gateway and the launcher each have this file, word for word (a test compares the two): what keeps a stream alive in
one program can then not be a standstill in the other.

`/health` cannot tell: vLLM's server answers it while its engine stands still. Progress is any change of generated
tokens, prompt tokens, KV use or finished requests. A lone prefill of 256k tokens changes the KV use with each of its
parts, and a first request may compile for minutes: no standstill counts before a client's first request has finished,
nor of an engine that was put to sleep. How many had finished before any client's, the caller has to say (`before`): the
launcher knows how many it warmed with, the gateway what it found when it first looked.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

RUNNING, WAITING = b"vllm:num_requests_running", b"vllm:num_requests_waiting"
KV_USE, FINISHED = b"vllm:kv_cache_usage_perc", b"vllm:request_success_total"
TOKENS: Final = (b"vllm:generation_tokens_total", b"vllm:prompt_tokens_total")
SLEEP, AWAKE = b"vllm:engine_sleep_state", b'sleep_state="awake"'
MAX_SAMPLES: Final = 1024  # of one metric: 64 engines have 320 of the one with the most
MAX_LINE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """One reading of a worker's /metrics, summed over its engines. `marks` are numbers of which at least one changes
    with any progress."""

    running: float = 0.0
    waiting: float = 0.0
    kv_use: float = 0.0  # of the fullest engine, 0 to 1
    finished: float = 0.0
    before: float = 0.0  # of the finished: those that were no client's; vLLM does not say
    asleep: float = 0.0  # above 0: put to sleep
    marks: tuple[float, ...] = ()

    @property
    def is_busy(self) -> bool:
        """Return whether the worker itself counts running or waiting requests."""
        return self.running + self.waiting > 0

    @property
    def tells(self) -> bool:
        """Return whether standing still means anything: a client's request has finished before, and the engine is not
        asleep."""
        return self.finished > self.before and not self.asleep

    def moved_since(self, before: "EngineMetrics") -> bool:
        """Return whether there was progress since the reading `before`."""
        return self.marks != before.marks

    def stood_still_since(self, before: "EngineMetrics") -> bool:
        """Return whether there was no progress and that means something. The caller checks whether there was any
        work."""
        return self.tells and before.tells and self.marks == before.marks


def read_metrics(page: bytes) -> EngineMetrics | None:
    """Parse vLLM's /metrics (Prometheus' text format); None if it lacks the number of running requests."""
    running, kv_use, finished = samples(page, RUNNING), samples(page, KV_USE), samples(page, FINISHED)
    if not running:
        return None
    marks = [*(value for name in TOKENS for value in samples(page, name)), *kv_use, *finished]
    return EngineMetrics(
        running=sum(running),
        waiting=sum(samples(page, WAITING)),
        kv_use=max(kv_use, default=0.0),
        finished=sum(finished),
        asleep=sum(numbers(line for line in lines(page, SLEEP) if AWAKE not in line)),
        marks=tuple(marks),
    )


def samples(page: bytes, name: bytes) -> list[float]:
    """Return the finite values of one metric, in the order of the page."""
    return numbers(lines(page, name))


def numbers(of: Iterator[bytes]) -> list[float]:
    return [value for value in map(number, of) if math.isfinite(value)]


def lines(page: bytes, name: bytes) -> Iterator[bytes]:
    """Yield the lines that are samples of `name`. They stand together, so the search ends behind them: most of a
    page's 100 KB are other metrics."""
    at = first(page, name)
    for _ in range(MAX_SAMPLES):
        if not is_sample(page, name, at):
            return
        end = page.find(b"\n", at)
        line = page[at : end if end >= 0 else len(page)]
        yield line
        at += len(line) + 1


def first(page: bytes, name: bytes) -> int:
    """Return where the first sample of `name` begins; the page's length if there is none, or if too many similar
    names come before."""
    at = 0
    for _ in range(MAX_SAMPLES):
        if is_sample(page, name, at):
            return at
        at = page.find(b"\n" + name, at) + 1
        if not at:
            break
    return len(page)


def is_sample(page: bytes, name: bytes, at: int) -> bool:
    return page.startswith(name, at) and page[at + len(name) : at + len(name) + 1] in (b"{", b" ")


def number(line: bytes) -> float:
    """Return a sample's value, which follows its labels; NaN if it has none. vLLM writes no timestamps."""
    if len(line) > MAX_LINE_BYTES:
        return math.nan
    try:
        return float(line.rpartition(b" ")[2])
    except ValueError:
        return math.nan
