"""Processes under measurement: on which core they run, what CPU time and memory they took, and that they end.

Most servers are one process; where one has children, its figures are those of the whole tree.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

END_S = 5  # how long a process may take to end after SIGTERM
FORGET_PEAK = "5"  # what /proc/<pid>/clear_refs takes to start VmHWM anew


@dataclass(frozen=True, slots=True)
class Layout:
    """Which core is whose: two for servers (most use the first alone), one for the mock worker, one for the load."""

    servers: tuple[int, int]
    mock: int
    load: int

    @property
    def is_shared(self) -> bool:
        """Whether mock worker and load share a core, which a server of two processes then shares with them."""
        return self.load in self.servers


def layout(cores: Sequence[int]) -> Layout:
    """Of one core, which all share, or more; two threads of one core count as one where enough are left."""
    if len(cores) == 1:
        return Layout((cores[0], cores[0]), cores[0], cores[0])
    apart = sorted({min(threads(core)) for core in cores} & set(cores))
    first, second, *others = apart if len(apart) >= 4 else cores
    mock, load = others[:2] if len(others) >= 2 else (second, second)
    return Layout((first, second), mock, load)


def threads(core: int) -> list[int]:
    """The CPUs that are threads of the same core, as Linux knows it."""
    file = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    return parse_cpus(file.read_text()) if file.exists() else [core]


def parse_cpus(text: str) -> list[int]:
    """Such as `0-1,8`."""
    ends = (part.partition("-")[::2] for part in text.strip().split(","))
    return [cpu for first, last in ends for cpu in range(int(first), int(last or first) + 1)]


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Runs the block, and every process started in it for good, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def program(
    words: Sequence[str], cores: set[int], output: Path, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program on `cores`, all its output appended to `output`, and ends it with the block."""
    with pinned(cores), output.open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=dict(env))
    try:
        yield process
    finally:
        end(process)


def python_module(*words: str) -> list[str]:
    """The command line of `python -m <words>`."""
    return [sys.executable, "-m", *words]


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL to a tree that does not heed it."""
    family = tree(process.pid)
    let_run(process.pid)  # one that is held hears nothing else
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        for pid in family[1:]:
            kill_child(pid)
        process.kill()
        process.wait()


def kill_child(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def hold(pid: int) -> None:
    """Stops a process tree until `let_run`, so that it costs the others on its core nothing."""
    for member in tree(pid):
        os.kill(member, signal.SIGSTOP)


def let_run(pid: int) -> None:
    for member in tree(pid):
        os.kill(member, signal.SIGCONT)


def tree(pid: int) -> list[int]:
    """A process and all its descendants, itself first."""
    found = [pid]
    for parent in found:
        found += children(parent)
    return found


def children(pid: int) -> list[int]:
    """The processes that any of a process's threads has started; none if it is gone."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    try:
        return [int(child) for file in lists for child in file.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def cpu_seconds(pid: int) -> float:
    """User and system CPU time of a process tree and all its threads so far."""
    return sum(time.clock_gettime(cpu_clock(member)) for member in tree(pid))


def cpu_clock(pid: int) -> int:
    """Linux's clock of a process's CPU time: nanoseconds, where /proc/<pid>/stat counts hundredths of a second."""
    return (~pid << 3) | 2


def peak_rss_mib(pid: int) -> float:
    """The most memory a process tree has held since `forget_peak`, in MiB."""
    return sum(parse_peak_rss(Path(f"/proc/{member}/status").read_text()) for member in tree(pid))


def forget_peak(pid: int) -> None:
    """Lets `peak_rss_mib` start from what is held now."""
    for member in tree(pid):
        Path(f"/proc/{member}/clear_refs").write_text(FORGET_PEAK)


def parse_peak_rss(status: str) -> float:
    """VmHWM of /proc/<pid>/status, in MiB."""
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
