"""Hours of load on one gateway: its memory, its open files and its cost at the end are what they were at the start.

usage: python -m bench.soak [--minutes 120] [--json FILE]
In every minute the gateway is busy for 42 seconds: requests, two hundred streams, clients that leave in the middle of
one. Exit codes: 0 all bars hold · 1 one was missed · 3 an answer was wrong, or a server broke.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop

from bench.answers import LONG, MODEL, stream_request
from bench.bars import Verdict
from bench.load import Plan, WrongAnswer
from bench.measure import run_load, to_sample
from bench.processes import layout, pinned
from bench.scenarios import JSON, MANY, Scenario, all_scenarios
from bench.servers import MAIN_FLEET, BrokenServer, Server, check_log, gateway_started, mock_started

MINUTE_S = 60
SECONDS = {JSON: 22.0, MANY: 18.0}  # of each minute, and 2 of those who leave: 70 %
LEAVERS, LEFT_AFTER_S = 100, 1.0
WARM_MINUTES = 10  # until caches and pools have their size
MOST_GROWTH_MIB_PER_H, MOST_FILES, MOST_DRIFT = 1.0, 2, 1.05


@dataclass(frozen=True, slots=True)
class Minute:
    """What one minute ended with."""

    rss_mib: float
    files: int
    us_per_request: float
    us_per_chunk: float
    request_p99_ms: float
    chunk_ttfb_p99_ms: float


def run_minute(server: Server, scenarios: dict[str, Scenario]) -> Minute:
    """A minute's load, and a look at the server when it rests again. Raises WrongAnswer, BrokenServer."""
    end = time.monotonic() + MINUTE_S
    samples = {}
    for key, scenario in scenarios.items():
        tally = uvloop.run(run_load(server, scenario))
        check_log(server, tally.answers)
        samples[key] = to_sample(tally, scenario.units, 0)
    uvloop.run(leave(server))
    time.sleep(max(0.0, end - time.monotonic()))
    if server.log is not None:
        os.truncate(server.log, 0)
    one, many = samples[JSON], samples[MANY]
    costs = one.us_per_unit, many.us_per_unit, one.p99_ms, many.ttfb_p99_ms
    return Minute(rss_mib(server.pid), files(server.pid), *costs)


async def leave(server: Server) -> None:
    """Clients that ask for a stream and are gone before its end."""
    plan = Plan(1, (stream_request(MODEL, LONG),), lambda _: True)
    request = plan.requests("127.0.0.1", server.port)[0]

    async def one() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        await asyncio.sleep(LEFT_AFTER_S)
        writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(LEAVERS)))


def rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def judge(minutes: Sequence[Minute]) -> list[Verdict]:
    """The bars, over what came after the first minutes."""
    kept = list(minutes[WARM_MINUTES:])
    if len(kept) < WARM_MINUTES:
        raise ValueError(f"{len(minutes)} minutes are too few: {2 * WARM_MINUTES} at least")
    grown = slope([minute.rss_mib for minute in kept]) * 60
    opened = kept[-1].files - kept[0].files
    return [
        Verdict("MiB an hour, growth of memory", grown, MOST_GROWTH_MIB_PER_H),
        Verdict("open files more at the end than at the start", opened, MOST_FILES),
        *(drift(name, [get(minute) for minute in kept]) for name, get in DRIFTS.items()),
    ]


DRIFTS: dict[str, Callable[[Minute], float]] = {
    "CPU a request": lambda minute: minute.us_per_request,
    "CPU a chunk": lambda minute: minute.us_per_chunk,
    "p99 of a request": lambda minute: minute.request_p99_ms,
    "p99 of a stream's first byte": lambda minute: minute.chunk_ttfb_p99_ms,
}


def slope(values: Sequence[float]) -> float:
    """By how much the values grow from one to the next, by least squares."""
    return statistics.linear_regression(range(len(values)), values).slope


def drift(name: str, values: Sequence[float]) -> Verdict:
    """The last quarter's median against the first's."""
    quarter = max(1, len(values) // 4)
    ratio = statistics.median(values[-quarter:]) / statistics.median(values[:quarter])
    return Verdict(f"{name}: last quarter against the first", ratio, MOST_DRIFT)


def soak(minutes: int) -> list[Minute]:
    """All minutes, on two cores as in the benchmark. Raises WrongAnswer, BrokenServer."""
    cores = layout(sorted(os.sched_getaffinity(0)))
    known = {scenario.key: scenario for scenario in all_scenarios()}
    scenarios = {
        key: replace(known[key], seconds=seconds - known[key].ramp_s) for key, seconds in SECONDS.items()
    }
    with tempfile.TemporaryDirectory(prefix="octet-soak-") as folder, ExitStack() as stack:
        _, ports = stack.enter_context(mock_started(Path(folder), cores.mock))
        server = stack.enter_context(gateway_started(Path(folder), cores.servers, MAIN_FLEET, ports))
        with pinned({cores.load}):
            return [told(at, run_minute(server, scenarios)) for at in range(minutes)]


def told(at: int, minute: Minute) -> Minute:
    figures = " ".join(f"{name} {value:.1f}" for name, value in asdict(minute).items())
    print(f"minute {at + 1}: {figures}", flush=True)
    return minute


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=120)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    try:
        minutes = soak(given.minutes)
        verdicts = judge(minutes)
    except (WrongAnswer, BrokenServer, ValueError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 3
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(minute) for minute in minutes], indent=1) + "\n")
    print("\n".join(verdict.text() for verdict in verdicts))
    return 1 if any(verdict.is_missed for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
