"""Every bar at full count: runs them one after another and writes docs/test-report.md with what each ended with.

usage: python tests/full.py [KEY...]     without keys: all, which takes about six hours; the rows of others stay
Exit codes: 0 all that ran hold · 1 one does not · 2 no such key.
"""

import datetime
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs/test-report.md"
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
CYCLES = ["scripts/test-e2e", "-m", "full", "tests/e2e/test_cycles.py"]
HOSTILE = ["scripts/test-e2e", "-m", "full", "tests/e2e/test_hostile.py"]
HOUR = 3600
DATED = re.compile(r"\| \d{4}-\d\d-\d\d \d\d:\d\d, [0-9a-f]{7,} \|")


@dataclass(frozen=True)
class Bar:
    """A command and the time it may take, in seconds. `key`: how it is asked for."""

    key: str
    name: str
    command: list[str]
    at_most_s: float


@dataclass(frozen=True)
class Outcome:
    bar: Bar
    passed: bool
    seconds: float
    summary: str
    when: str

    def line(self) -> str:
        verdict = "holds" if self.passed else "**FAILS**"
        return f"| {self.bar.name} | {verdict} | {self.when} | {self.seconds:.0f} s | {self.summary} |"


BARS = (
    Bar("check", "checks", ["make", "check"], HOUR),
    Bar("test", "unit, integration, contract (`make test`: at most 5 minutes)", ["make", "test"], 300),
    Bar("compiled", "the gateway's integration tests, compiled", ["make", "test-compiled"], HOUR),
    Bar("e2e", "end to end, every model", ["make", "test-e2e", "MODELS=all"], HOUR),
    Bar("more", "end to end: other clients, `make bench`, faults, corrupt weights", ["make", "test-e2e-more"], HOUR),
    Bar("observability", "dashboards, rules, alerts under faults, the webhook", ["make", "test-observability"], HOUR),
    Bar("cuda-1", "CUDA image, first slug", ["make", "build", "MODEL=deepseek-r1-distill-qwen-7b"], HOUR),
    Bar("cuda-2", "CUDA image, second slug", ["make", "build", "MODEL=step3p5-fp8"], HOUR),
    Bar(
        "cost",
        "gateway's cost (at most 90 µs/request, 30 µs/chunk)",
        ["make", "bench-gateway", "BENCH=--servers gateway,direct --scenarios json,streams-200 --rounds 7"],
        HOUR,
    ),
    Bar("crowd", "fifty clients beside a thousand that read slowly", ["make", "bench-crowd"], HOUR),
    Bar("hostile", "fifty streams beside one client with the worst bodies", ["make", "bench-hostile"], HOUR),
    Bar("scrapes", "being watched (at most 1 % of a core)", ["make", "bench-scrapes"], HOUR),
    Bar("uploads", "64 uploads of 50 MiB at once into the shipped container", [*HOSTILE, "-k", "uploads"], HOUR),
    Bar("launcher", "the launcher with real vLLM under attack", [*HOSTILE, "-k", "not uploads"], HOUR),
    Bar("demo", "`make demo`, images built (at most 10 minutes)", ["make", "demo"], 600),
    Bar("demo-2", "second `make demo` (at most 2 minutes)", ["make", "demo"], 120),
    Bar("demo-down", "`make demo-down`", ["make", "demo-down"], HOUR),
    Bar("count", "tests at full count", [*PYTEST, "-m", "full"], HOUR),
    Bar("fuzz", "random input, thirty minutes each", ["make", "fuzz", "SECONDS=1800", "JOBS=7"], 3 * HOUR),
    Bar("twenty", "down and up twenty times", [*CYCLES, "-k", "twenty"], HOUR),
    Bar("restarts", "containers that end at random for two hours", [*CYCLES, "-k", "random"], 3 * HOUR),
    Bar("soak", "two hours of load on one gateway", ["make", "soak"], 3 * HOUR),
)  # fmt: skip


def run(bar: Bar) -> Outcome:
    """Runs one bar, its output on the terminal too, and keeps the line that sums it up."""
    print(f"\n==== {bar.name}", flush=True)
    start, state = time.monotonic(), when()
    process = subprocess.Popen(
        bar.command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    overdue = threading.Timer(bar.at_most_s, os.killpg, (process.pid, signal.SIGTERM))
    overdue.start()
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line.rstrip())
    code, seconds = process.wait(), time.monotonic() - start
    overdue.cancel()
    passed = code == 0 and seconds <= bar.at_most_s
    return Outcome(bar, passed, seconds, sum_up(lines, code), state)


def sum_up(lines: list[str], code: int) -> str:
    """pytest's closing line, the benchmark's figures, or the last line."""
    closing = [
        line.strip("= ") for line in lines if re.search(r"\d+ (passed|failed|deselected).* in [\d.]+s", line)
    ]
    costs = [line.strip() for line in lines if re.search(r"median CPU .* us/", line)]
    figures = costs or [line.strip() for line in lines if re.match(r"(holds|MISSED|inconclusive) ", line)]
    text = "; ".join(figures) or (
        closing[-1] if closing else next((line for line in reversed(lines) if told(line)), "")
    )
    return ("" if code == 0 else f"exit {code}: ") + text.replace("|", "/")


def told(line: str) -> bool:
    """Whether a line says something: make's own remarks do not."""
    return bool(line) and not re.match(r"make(\[\d+\])?: ", line)


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def when() -> str:
    """Date and commit at the start of a run, which a report made in parts needs for each of its rows."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M}, {commit}"


def report(outcomes: list[Outcome], before: str) -> str:
    """Every bar that has been run, now or, by `before`, earlier."""
    earlier = [line for line in before.splitlines() if DATED.search(line)]
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in earlier}
    lines |= {outcome.bar.name: outcome.line() for outcome in outcomes}
    host = f"{os.cpu_count()} cores, {memory_gib():.0f} GiB, {platform.system()}, Python {platform.python_version()}"
    head = ["# Test report", "", f"Written by `make test-full`, times in UTC; the last run on {host}.", ""]
    table = ["| what | bar | when, commit | time | closing line |", "|---|---|---|--:|---|"]
    return "\n".join([*head, *table, *(lines[bar.name] for bar in BARS if bar.name in lines), ""])


def chosen(keys: list[str]) -> list[Bar]:
    """The bars of those keys, all without any. Raises LookupError naming those there are."""
    if unknown := set(keys) - {bar.key for bar in BARS}:
        known = " ".join(bar.key for bar in BARS)
        raise LookupError(f"no bar is called {', '.join(sorted(unknown))}; there are: {known}")
    return [bar for bar in BARS if not keys or bar.key in keys]


def main(keys: list[str]) -> int:
    try:
        bars = chosen(keys)
    except LookupError as error:
        print(f"test-full: {error}", file=sys.stderr)
        return 2
    outcomes = []
    for bar in bars:
        outcomes.append(run(bar))
        before = REPORT.read_text() if REPORT.exists() else ""  # another run may have written meanwhile
        REPORT.write_text(report(outcomes, before))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
