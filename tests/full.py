"""Every bar at full count: runs them one after another and writes docs/test-report.md with what each ended with."""

import datetime
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs/test-report.md"
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
HOUR = 3600


@dataclass(frozen=True)
class Bar:
    """A command and the time it may take, in seconds."""

    name: str
    command: list[str]
    at_most_s: float


@dataclass(frozen=True)
class Outcome:
    bar: Bar
    passed: bool
    seconds: float
    summary: str


BARS = (
    Bar("checks", ["make", "check"], HOUR),
    Bar("unit, integration, contract (`make test`: at most 5 minutes)", ["make", "test"], 300),
    Bar("the gateway's integration tests, compiled", ["make", "test-compiled"], HOUR),
    Bar("end to end, every model", ["make", "test-e2e", "MODELS=all"], HOUR),
    Bar("end to end, clients that people use", ["make", "test-e2e-more"], HOUR),
    Bar("CUDA image, first slug", ["make", "build", "MODEL=deepseek-r1-distill-qwen-7b"], HOUR),
    Bar("CUDA image, second slug", ["make", "build", "MODEL=step3p5-fp8"], HOUR),
    Bar(
        "gateway's cost (at most 90 µs/request, 30 µs/chunk)",
        ["make", "bench-gateway", "BENCH=--servers gateway,direct --scenarios json,streams-200 --rounds 7"],
        HOUR,
    ),
    Bar("`make demo`, images built (at most 10 minutes)", ["make", "demo"], 600),
    Bar("second `make demo` (at most 2 minutes)", ["make", "demo"], 120),
    Bar("`make demo-down`", ["make", "demo-down"], HOUR),
    Bar("random input, two minutes each", ["make", "fuzz", "SECONDS=120"], HOUR),
    Bar("tests at full count", [*PYTEST, "-m", "full"], HOUR),
)


def run(bar: Bar) -> Outcome:
    """Runs one bar, its output on the terminal too, and keeps the line that sums it up."""
    print(f"\n==== {bar.name}", flush=True)
    start = time.monotonic()
    process = subprocess.Popen(
        bar.command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line.rstrip())
    code, seconds = process.wait(), time.monotonic() - start
    passed = code == 0 and seconds <= bar.at_most_s
    return Outcome(bar, passed, seconds, sum_up(lines, code))


def sum_up(lines: list[str], code: int) -> str:
    """pytest's closing line, the benchmark's figures, or the last line."""
    closing = [
        line.strip("= ") for line in lines if re.search(r"\d+ (passed|failed|deselected).* in [\d.]+s", line)
    ]
    figures = [line.strip() for line in lines if re.search(r"median CPU .* us/", line)]
    text = "; ".join(figures) or (
        closing[-1] if closing else next((line for line in reversed(lines) if told(line)), "")
    )
    return text.replace("|", "/") if code == 0 else f"exit {code}: {text}"


def told(line: str) -> bool:
    """Whether a line says something: make's own remarks do not."""
    return bool(line) and not re.match(r"make(\[\d+\])?: ", line)


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def report(outcomes: list[Outcome]) -> str:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    host = f"{os.cpu_count()} cores, {memory_gib():.0f} GiB, {platform.system()}, Python {platform.python_version()}"
    rows = [
        f"| {o.bar.name} | {'holds' if o.passed else '**FAILS**'} | {o.seconds:.0f} s | {o.summary} |"
        for o in outcomes
    ]
    head = [
        "# Test report",
        "",
        f"Written by `make test-full` on {now}, commit {commit.strip()}, {host}.",
        "",
    ]
    return "\n".join([*head, "| what | bar | time | closing line |", "|---|---|--:|---|", *rows, ""])


def main() -> int:
    outcomes = []
    for bar in BARS:
        outcomes.append(run(bar))
        REPORT.write_text(report(outcomes))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
