"""Processes under measurement: on which core they run, what CPU time and memory they took, and that they end."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

END_S = 10  # how long a process may take to end after SIGTERM


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Runs the block, and every process started in it for good, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def python_module(
    words: list[str], core: int, output: Path, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `python -m <words>` on `core`, standard output appended to `output`, and ends it with the block."""
    with pinned(core), output.open("ab") as stdout:
        process = subprocess.Popen([sys.executable, "-m", *words], stdout=stdout, env=dict(env))
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL to a process that does not heed it."""
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system CPU time of a process and all its threads so far."""
    return parse_cpu(Path(f"/proc/{pid}/stat").read_text(), os.sysconf("SC_CLK_TCK"))


def peak_rss_mib(pid: int) -> float:
    """The most memory a process has held so far, in MiB."""
    return parse_peak_rss(Path(f"/proc/{pid}/status").read_text())


def parse_cpu(stat: str, ticks_per_second: int) -> float:
    """utime + stime of a /proc/<pid>/stat line, in seconds. The command's name may hold blanks and brackets."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks_per_second


def parse_peak_rss(status: str) -> float:
    """VmHWM of /proc/<pid>/status, in MiB."""
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
