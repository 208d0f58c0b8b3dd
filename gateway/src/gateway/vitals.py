"""What a worker says of itself at /metrics, and whether it gets anywhere. Pure.

`/health` cannot tell: vLLM's server answers it while its engine stands still. Progress is any change of generated
tokens, prompt tokens, KV use or finished requests. A lone prefill of 256k tokens changes the KV use with each of its
parts, and a first request may compile for minutes: nothing is judged before a first request has finished.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

RUNNING, WAITING = b"vllm:num_requests_running", b"vllm:num_requests_waiting"
KV_USE, FINISHED = b"vllm:kv_cache_usage_perc", b"vllm:request_success_total"
TOKENS: Final = (b"vllm:generation_tokens_total", b"vllm:prompt_tokens_total")


@dataclass(frozen=True, slots=True)
class Vitals:
    """One reading, over all engines of the worker. `marks`: the numbers of which one changes with any progress."""

    running: float = 0.0
    waiting: float = 0.0
    kv_use: float = 0.0  # of the fullest engine, 0 to 1
    finished: float = 0.0
    marks: tuple[float, ...] = ()


def read_vitals(page: bytes) -> Vitals | None:
    """Reads vLLM's /metrics in Prometheus' text format; None if it does not say how many requests run."""
    running, kv_use, finished = samples(page, RUNNING), samples(page, KV_USE), samples(page, FINISHED)
    if not running:
        return None
    marks = [*(value for name in TOKENS for value in samples(page, name)), *kv_use, *finished]
    waiting = sum(samples(page, WAITING))
    return Vitals(sum(running), waiting, max(kv_use, default=0.0), sum(finished), tuple(marks))


def samples(page: bytes, name: bytes) -> list[float]:
    """The finite values of one metric, in their order."""
    return [value for value in map(number, lines(page, name)) if math.isfinite(value)]


def lines(page: bytes, name: bytes) -> Iterator[bytes]:
    """The lines that are samples of `name`. They stand together, so what follows them is not searched: most of a page's
    100 KB are other metrics'."""
    at = first(page, name)
    while is_sample(page, name, at):
        end = page.find(b"\n", at)
        line = page[at : end if end >= 0 else len(page)]
        yield line
        at += len(line) + 1


def first(page: bytes, name: bytes) -> int:
    """Where the first sample of `name` begins; the page's length if there is none."""
    at = 0
    while not is_sample(page, name, at):
        at = page.find(b"\n" + name, at) + 1
        if not at:
            return len(page)
    return at


def is_sample(page: bytes, name: bytes, at: int) -> bool:
    return page.startswith(name, at) and page[at + len(name) : at + len(name) + 1] in (b"{", b" ")


def number(line: bytes) -> float:
    """A sample's value, behind its labels; NaN if it has none. vLLM writes no timestamps."""
    try:
        return float(line.rpartition(b" ")[2])
    except ValueError:
        return math.nan


@dataclass(frozen=True, slots=True)
class Progress:
    """How long nothing has moved, in seconds of the caller's clock, summed over readings that came one after another.

    still_s: with requests there, by the worker's account or by ours. hung_s: with requests running by its own account.
    Ours alone is weaker: a client may be slow to take an answer that the worker has long finished.
    """

    at: float = 0.0
    marks: tuple[float, ...] = ()
    finished: float = 0.0
    still_s: float = 0.0
    hung_s: float = 0.0

    def heard(self, vitals: Vitals, in_flight: int, now: float, longest_s: float) -> "Progress":
        """The worker was read. Of the time since the last reading at most `longest_s` counts: we may have slept."""
        read = Progress(now, vitals.marks, vitals.finished, self.still_s, self.hung_s)
        if not self.finished or vitals.marks != self.marks:
            return replace(read, still_s=0.0, hung_s=0.0)
        passed = min(now - self.at, longest_s)
        still_s = self.still_s + passed if vitals.running or in_flight else 0.0
        return replace(read, still_s=still_s, hung_s=self.hung_s + passed if vitals.running else 0.0)

    def silent(self, now: float) -> "Progress":
        """The worker did not say: this time is not judged."""
        return replace(self, at=now)
