"""Hours of load on one gateway: its memory, its open files and its cost at the end are what they were at the start.

usage: python -m bench.soak [--minutes 120] [--json FILE]
In every minute the gateway is busy for 42 seconds, with as much as the cores give: requests, two hundred streams, and
clients that leave in the middle of one. For a part of that, half of the load goes to a young gateway on the same core,
replaced every ten minutes; what the old one takes is told as a multiple of the young one's at the same moment, since
the host's ups and downs fall on both. With one core (`taskset -c 1 make soak`) gateways, mock worker and load share it.
Every minute is kept as it ends.
Exit codes: 0 all bars hold · 1 one was missed · 2 too few minutes · 3 an answer was wrong, or a server broke.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop

from bench.answers import LONG, MODEL, stream_request
from bench.bars import Verdict
from bench.figures import quantile
from bench.load import Plan, Tally, WrongAnswer
from bench.measure import run_load, to_sample
from bench.processes import Layout, layout, pinned
from bench.record import Sample
from bench.scenarios import JSON, MANY, Scenario, all_scenarios
from bench.servers import MAIN_FLEET, BrokenServer, Server, check_log, gateway_started, mock_started

MINUTE_S = 60
ALONE_S = {JSON: 14.0, MANY: 8.0}  # of each minute: the old gateway has all the load
BESIDE_S = {JSON: 12.0, MANY: 8.0}  # likewise: old and young have half of it each
LEAVERS, LEFT_AFTER_S = 100, 1.0
NOTICED_S = 2.0  # by then the gateway has logged them: where the host was busy a minute takes longer
YOUNG_MINUTES = 10
WARM_MINUTES = 10  # until caches and pools have their size
MOST_GROWTH_MIB_PER_H, MOST_FILES, MOST_DRIFT = 1.0, 2, 1.05


@dataclass(frozen=True, slots=True)
class Minute:
    """What one minute ended with."""

    rss_mib: float
    files: int
    request_cost: float  # CPU time, as a multiple of the young gateway's
    chunk_cost: float
    request_p99: float  # likewise
    us_per_request: float  # the old one's
    us_per_chunk: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Pair:
    """What the old gateway and the young one took at the same time."""

    old: Sample
    young: Sample

    def cost(self) -> float:
        return self.old.us_per_unit / self.young.us_per_unit

    def p99(self) -> float:
        return self.old.p99_ms / self.young.p99_ms


def run_minute(old: Server, young: Server) -> Minute:
    """A minute's load, and a look at the old gateway when it rests again. Raises WrongAnswer, BrokenServer."""
    end = time.monotonic() + MINUTE_S
    for key, seconds in ALONE_S.items():
        load([old], key, seconds)
    requests, streams = (Pair(*load([old, young], key, seconds)) for key, seconds in BESIDE_S.items())
    uvloop.run(leave(old))
    time.sleep(max(NOTICED_S, end - time.monotonic()))
    if old.log is not None:
        os.truncate(old.log, 0)
    return Minute(
        rss_mib=rss_mib(old.pid),
        files=files(old.pid),
        request_cost=requests.cost(),
        chunk_cost=streams.cost(),
        request_p99=requests.p99(),
        us_per_request=requests.old.us_per_unit,
        us_per_chunk=streams.old.us_per_unit,
        p99_ms=requests.old.p99_ms,
    )


def load(servers: Sequence[Server], key: str, seconds: float) -> list[Sample]:
    """A scenario's load, shared by the servers, and each one's figures. Raises WrongAnswer, BrokenServer."""
    scenario = next(scenario for scenario in all_scenarios() if scenario.key == key)
    share = scenario.connections // len(servers)
    scenario = replace(scenario, seconds=seconds - scenario.ramp_s, connections=share)
    tallies = uvloop.run(run_loads(servers, scenario))
    for server, tally in zip(servers, tallies, strict=True):
        check_log(server, tally.answers)
    return [to_sample(tally, scenario.units, 0) for tally in tallies]


async def run_loads(servers: Sequence[Server], scenario: Scenario) -> list[Tally]:
    return await asyncio.gather(*(run_load(server, scenario) for server in servers))


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
    grown = slope([minute.rss_mib for minute in kept]) * 60
    opened = kept[-1].files - kept[0].files
    return [
        Verdict("MiB an hour, growth of memory", grown, MOST_GROWTH_MIB_PER_H),
        Verdict("open files more at the end than at the start", opened, MOST_FILES),
        *(drift(name, [get(minute) for minute in kept]) for name, get in DRIFTS.items()),
    ]


DRIFTS: dict[str, Callable[[Minute], float]] = {
    "CPU a request": lambda minute: minute.request_cost,
    "CPU a chunk": lambda minute: minute.chunk_cost,
    "p99 of a request": lambda minute: minute.request_p99,
}


def slope(values: Sequence[float]) -> float:
    """By how much the values grow from one to the next, by least squares."""
    return statistics.linear_regression(range(len(values)), values).slope


def drift(name: str, ratios: Sequence[float]) -> Verdict:
    """The last quarter's median against the first's, of what the old gateway takes in multiples of the young one's."""
    quarter = max(1, len(ratios) // 4)
    ratio = statistics.median(ratios[-quarter:]) / statistics.median(ratios[:quarter])
    spread = f"minutes {quantile(ratios, 0.1):.2f}-{quantile(ratios, 0.9):.2f} of a young gateway's"
    return Verdict(f"{name}: last quarter against the first ({spread})", ratio, MOST_DRIFT)


def soak(minutes: int, keep: Callable[[Minute], None]) -> None:
    """All minutes, on cores as in the benchmark. Raises WrongAnswer, BrokenServer."""
    cores = layout(sorted(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="octet-soak-") as folder, ExitStack() as stack:
        _, ports = stack.enter_context(mock_started(Path(folder), cores.mock))
        old = stack.enter_context(gateway_started(Path(folder), cores.servers, MAIN_FLEET, ports))
        for begin in range(0, minutes, YOUNG_MINUTES):
            with young_gateway(cores, ports) as young, pinned({cores.load}):
                for _ in range(begin, min(begin + YOUNG_MINUTES, minutes)):
                    keep(run_minute(old, young))


@contextmanager
def young_gateway(cores: Layout, ports: list[int]) -> Iterator[Server]:
    """A gateway like the old one, on the same core, that has answered for some seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="octet-soak-") as folder,
        gateway_started(Path(folder), cores.servers, MAIN_FLEET, ports) as server,
    ):
        with pinned({cores.load}):
            for key, seconds in BESIDE_S.items():
                load([server], key, seconds)
        yield server


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=120)
    parser.add_argument("--json", type=Path, default=Path("out/soak.json"), help="a line for each minute")
    given = parser.parse_args()
    if given.minutes < 2 * WARM_MINUTES:
        parser.error(f"{given.minutes} minutes are too few: {2 * WARM_MINUTES} at least")
    return given


def main() -> int:
    given, minutes = parse_arguments(), list[Minute]()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with this process
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text("")

    def keep(minute: Minute) -> None:
        minutes.append(minute)
        with given.json.open("a") as file:
            file.write(json.dumps(asdict(minute)) + "\n")
        print(
            f"minute {len(minutes)}:",
            *(f"{name} {value:.2f}" for name, value in asdict(minute).items()),
            flush=True,
        )

    try:
        soak(given.minutes, keep)
    except (WrongAnswer, BrokenServer) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 3
    verdicts = judge(minutes)
    print("\n".join(verdict.text() for verdict in verdicts))
    return 1 if any(verdict.is_missed for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
