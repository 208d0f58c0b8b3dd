"""What vLLM says of itself at /metrics, and whether it makes progress. Pure. The gateway reads it with each probe
(`fleet/progress.py` compares), the launcher every few seconds (`Watch`). Each has this file, word for word (a test
compares the two), so that what is progress for one is no standstill for the other.

`/health` cannot tell: vLLM's server answers it while its engine stands still. Progress is any change of generated
tokens, prompt tokens, KV use or finished requests. A lone prefill of 256k tokens changes the KV use with each of its
parts, and a first request may compile for minutes: no standstill counts before a client's first request has finished,
nor of an engine that was put to sleep. How many had finished before any client's, the caller has to say (`before`): the
launcher knows how many it warmed with, the gateway what it found when it first looked."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

RUNNING, WAITING = b"vllm:num_requests_running", b"vllm:num_requests_waiting"
KV_USE, FINISHED = b"vllm:kv_cache_usage_perc", b"vllm:request_success_total"
TOKENS: Final = (b"vllm:generation_tokens_total", b"vllm:prompt_tokens_total")
SLEEP, AWAKE = b"vllm:engine_sleep_state", b'sleep_state="awake"'
MAX_SAMPLES: Final = 1024  # of one metric: 64 engines have 320 of the one with the most
MAX_LINE_BYTES: Final = 4096  # of a sample; vLLM's are far shorter, and a longer line has no value here


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
        """Return whether vLLM itself counts running or waiting requests: without work, nothing has to change."""
        return self.running + self.waiting > 0

    @property
    def tells(self) -> bool:
        """Return whether a lack of progress would be a fault: a client's request has finished before, and the engine is
        not asleep."""
        return self.finished > self.before and not self.asleep

    def moved_since(self, before: "EngineMetrics") -> bool:
        """Return whether there was progress since the reading `before`: any of the marks has changed."""
        return self.marks != before.marks

    def stood_still_since(self, before: "EngineMetrics") -> bool:
        """Return whether there was no progress since the reading `before`, and that would be a fault if there was work,
        which the caller checks."""
        return self.tells and before.tells and self.marks == before.marks


def read_metrics(page: bytes) -> EngineMetrics | None:
    """Parse vLLM's /metrics (Prometheus' text format); None if it lacks the number of running requests: not vLLM's."""
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
    """Return the finite values of one metric, in the order of the page; empty if it has none."""
    return numbers(lines(page, name))


def numbers(of: Iterator[bytes]) -> list[float]:
    """Return the finite values of sample lines: a NaN among the marks would differ from itself, and so be progress."""
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
    """Return where the first sample of `name` begins; the page's length if there is none, or if more than MAX_SAMPLES
    similar names come before, as in no page of vLLM's."""
    at = 0
    for _ in range(MAX_SAMPLES):
        if is_sample(page, name, at):
            return at
        at = page.find(b"\n" + name, at) + 1
        if not at:
            break
    return len(page)


def is_sample(page: bytes, name: bytes, at: int) -> bool:
    """Return whether a sample of `name` begins at `at`: labels or a space follow, not the rest of a longer name."""
    return page.startswith(name, at) and page[at + len(name) : at + len(name) + 1] in (b"{", b" ")


def number(line: bytes) -> float:
    """Return a sample's value, which follows its labels, since vLLM writes no timestamps; NaN if it has none."""
    if len(line) > MAX_LINE_BYTES:
        return math.nan
    try:
        return float(line.rpartition(b" ")[2])
    except ValueError:
        return math.nan
