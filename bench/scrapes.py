"""What being watched costs: the CPU time of every page that Prometheus asks for, in gateway, launcher and weights job.

usage: python -m bench.scrapes [--rounds 7] [--json FILE] [--page FILE]
In each round a process is left alone and then asked for one page after another, twenty times a second, each time on a
new connection; what it takes more of the CPU than alone, where it probes workers too, is the page's cost. How often
Prometheus asks is read from observability/prometheus/prometheus.yaml. The workers here have no launchers: the list of
launchers, as long as that of the workers, is taken to cost the same.
Exit codes: 0 the bars hold · 1 one is missed · 3 a server broke
"""

import argparse
import http.client
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
import yaml

from bench.bars import Verdict
from bench.figures import Figure
from bench.host import host
from bench.load import WrongAnswer
from bench.marked import replaced
from bench.measure import run_load
from bench.processes import cpu_clock, layout, pinned, program, python_module
from bench.scenarios import GROWTH, ONE, all_scenarios
from bench.servers import (
    GROWN_FLEETS,
    BrokenServer,
    Fleet,
    Server,
    free_port,
    gateway_started,
    mock_started,
    wait_until,
)
from bench.weights import FETCHED_BYTES, REPO, hub, model
from tests.integration.launcher.harness import Site, Worker

CONFIG = Path(__file__).resolve().parents[1] / "observability/prometheus/prometheus.yaml"
ROUNDS, SCRAPES, APART_S, ALONE_S = 7, 40, 0.05, 2.0
MOST_PERCENT = 1.0  # of a core
FLEETS = ("gateway-64-workers", "gateway-100-models")
METRICS, WORKERS, LAUNCHERS = "/metrics", "/targets/worker", "/targets/launcher"
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus",
}
UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
LAUNCHER, JOB = "launcher, one worker", "weights job"
SLOWLY = 100_000  # bytes a second: the least that the job can be told
START_S = 20
TARGET = "bench-scrapes"


@dataclass(frozen=True, slots=True)
class Watched:
    """A process, its port, and every how many seconds Prometheus asks for each of its pages."""

    name: str
    pid: int
    port: int
    pages: Mapping[str, float]

    def cpu_s(self) -> float:
        """Of the process alone: what it has started answers nothing."""
        return time.clock_gettime(cpu_clock(self.pid))


@dataclass(frozen=True, slots=True)
class Cost:
    """What was measured of a process. `us`: CPU microseconds of each page, a value for each round; `alone`: cores."""

    name: str
    pages: Mapping[str, float]
    us: Mapping[str, Sequence[float]]
    alone: Sequence[float]
    samples: int

    def percent(self) -> float:
        """Of a core, at the intervals shipped."""
        return sum(Figure.of(self.us[page]).median / every for page, every in self.pages.items()) / 1e4

    def text(self) -> str:
        pages = ", ".join(f"{page} {Figure.of(values).text(0)} µs" for page, values in self.us.items())
        alone = Figure.of([100 * share for share in self.alone]).text(2)
        return (
            f"{self.name}: {self.samples} samples, {pages}; {self.percent():.3f} % of a core; alone {alone} %"
        )


def schedule(config: Mapping[str, Any], job: str) -> dict[str, float]:
    """What Prometheus asks of a job's process, and every how many seconds; the gateway has the lists of targets too."""
    jobs = {entry["job_name"]: entry for entry in config["scrape_configs"]}
    found = {METRICS: seconds(jobs[job].get("scrape_interval", config["global"]["scrape_interval"]))}
    for one in jobs.values() if job == "gateway" else ():
        for source in one.get("http_sd_configs", ()):
            found["/" + source["url"].split("/", 3)[3]] = seconds(source["refresh_interval"])
    return found


def seconds(duration: str) -> float:
    """Such as `5s` or `1m30s`, as Prometheus writes them."""
    parts = re.findall(r"(\d+)(ms|[smh])", duration)
    if "".join(map("".join, parts)) != duration:
        raise ValueError(f"{duration!r} is no duration")
    return sum(int(number) * UNITS_S[unit] for number, unit in parts)


def scrape(port: int, page: str) -> bytes:
    """One page, as Prometheus asks for it. Raises BrokenServer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
    try:
        connection.request("GET", page, headers=HEADERS)
        answer = connection.getresponse()
        body = answer.read()
    except OSError as error:
        raise BrokenServer(f"{page} on port {port}: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise BrokenServer(f"{page} on port {port}: status {answer.status}")
    return body


def spent(watched: Watched, work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds and seconds that passed meanwhile."""
    cpu, begin = watched.cpu_s(), time.monotonic()
    work()
    return watched.cpu_s() - cpu, time.monotonic() - begin


def measure(watched: Watched, rounds: int) -> Cost:
    """All rounds, after one that only warms up. Raises BrokenServer."""
    us: dict[str, list[float]] = {page: [] for page in watched.pages}
    alone: list[float] = []
    for number in range(rounds + 1):
        cpu, passed = spent(watched, lambda: time.sleep(ALONE_S))
        found = {page: cost_us(watched, page, cpu / passed) for page in watched.pages}
        if number:
            alone.append(cpu / passed)
            for page, value in found.items():
                us[page].append(value)
    told = scrape(watched.port, METRICS).splitlines()
    samples = sum(not line.startswith(b"#") for line in told)
    return Cost(watched.name, watched.pages, with_launchers(us), alone, samples)


def cost_us(watched: Watched, page: str, alone: float) -> float:
    """Microseconds a scrape, beyond what the process takes alone. Raises BrokenServer."""

    def ask() -> None:
        for _ in range(SCRAPES):
            scrape(watched.port, page)
            time.sleep(APART_S)

    cpu, passed = spent(watched, ask)
    return (cpu - alone * passed) / SCRAPES * 1e6


def with_launchers(us: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """The list of launchers at what that of workers costs."""
    return {page: us[WORKERS] if page == LAUNCHERS else values for page, values in us.items()}


def send_traffic(server: Server, fleet: Fleet) -> None:
    """Until every model has every series. Raises WrongAnswer, BrokenServer."""
    scenarios = {scenario.key: scenario for scenario in all_scenarios()}
    uvloop.run(run_load(server, replace(scenarios[GROWTH], seconds=1)))
    streams = replace(
        scenarios[ONE], connections=max(len(fleet.models), 10), servers=scenarios[GROWTH].servers
    )
    uvloop.run(run_load(server, replace(streams, ramp_s=0.5, seconds=0.5)))
    told = scrape(server.ops, METRICS).decode()
    counts = re.findall(
        r'^gateway_time_between_chunks_seconds_count\{model="([^"]+)".*\} ([\d.]+)$', told, re.MULTILINE
    )
    if {name for name, count in counts if float(count)} != set(fleet.models):
        raise BrokenServer(f"{fleet.name}: {len(counts)} models streamed, of {len(fleet.models)}")


def gateway(core: int, fleet: Fleet, config: Mapping[str, Any], rounds: int) -> Cost:
    """Raises WrongAnswer, BrokenServer."""
    with tempfile.TemporaryDirectory(prefix="octet-scrapes-") as folder, ExitStack() as stack:
        _, ports = stack.enter_context(mock_started(Path(folder), core))
        server = stack.enter_context(gateway_started(Path(folder), (core,), fleet, ports))
        send_traffic(server, fleet)
        return measure(Watched(fleet.name, server.pid, server.ops, schedule(config, "gateway")), rounds)


def launcher(core: int, config: Mapping[str, Any], rounds: int) -> Cost:
    """Beside a vLLM that is ready and does nothing. Raises BrokenServer."""
    with tempfile.TemporaryDirectory(prefix="octet-scrapes-") as folder, pinned({core}):
        site, port = Site(Path(folder)), free_port()
        site.settings["LAUNCHER_OPS_PORT"] = str(port)
        site.publish()
        worker = Worker(site)
        try:
            worker.wait_event("phase", phase="ready")
            return measure(Watched(LAUNCHER, worker.process.pid, port, schedule(config, "launcher")), rounds)
        finally:
            worker.close()


def weights_job(core: int, config: Mapping[str, Any], rounds: int) -> Cost:
    """While it fetches, as slowly as it can be told to. Raises BrokenServer."""
    with tempfile.TemporaryDirectory(prefix="octet-scrapes-") as folder, job(Path(folder), core) as watched:
        return measure(replace(watched, pages=schedule(config, "weights")), rounds)


@contextmanager
def job(folder: Path, core: int) -> Iterator[Watched]:
    """A weights job that fetches from a local hub. Raises BrokenServer."""
    (folder / "models").mkdir()
    model(folder / "models", [FETCHED_BYTES])
    port = free_port()
    with hub(folder / "models") as endpoint:
        settings = {
            "SLUG": "bench", "REPO": REPO, "DIR": folder / "volume", "ENDPOINT": endpoint, "PORT": port,
            "PROGRESS": "json", "MOST_BYTES_PER_S": SLOWLY,
        }  # fmt: skip
        env = os.environ | {f"MODEL_CACHE_{name}": str(value) for name, value in settings.items()}
        with program(python_module("model_cache"), {core}, folder / "job.log", env) as process:
            if not wait_until(lambda: is_fetching(port), START_S):
                raise BrokenServer(
                    f"the weights job does not fetch: {(folder / 'job.log').read_text()[-500:]}"
                )
            yield Watched(JOB, process.pid, port, {})


def is_fetching(port: int) -> bool:
    try:
        return b'model_cache_phase{phase="downloading",repo="bench/weights",slug="bench"} 1.0' in scrape(
            port, METRICS
        )
    except BrokenServer:
        return False


def judge(costs: Sequence[Cost]) -> list[Verdict]:
    return [
        Verdict(f"% of a core for being watched: {cost.name}", cost.percent(), MOST_PERCENT) for cost in costs
    ]


def run(rounds: int) -> list[Cost]:
    """Every process, one after another, each on one core. Raises WrongAnswer, BrokenServer."""
    cores, config = layout(sorted(os.sched_getaffinity(0))), yaml.safe_load(CONFIG.read_text())
    fleets = [fleet for fleet in GROWN_FLEETS if fleet.key in FLEETS]
    with pinned({cores.load}):
        gateways = [gateway(cores.servers[0], fleet, config, rounds) for fleet in fleets]
        return [
            *gateways,
            launcher(cores.servers[0], config, rounds),
            weights_job(cores.servers[0], config, rounds),
        ]


def written(costs: Sequence[Cost], rounds: int) -> str:
    """The table, and when and where it was measured; Markdown."""
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    where = f"{today}, {host()}, Python {platform.python_version()}"
    head = f"{where}; medians of {rounds} rounds, the lowest and highest in brackets.\n"
    titles = ["| process | samples | CPU µs, `/metrics` | CPU µs, lists of targets | % of a core |  |"]
    rows = [row(cost, verdict) for cost, verdict in zip(costs, judge(costs), strict=True)]
    return "\n".join([head, *titles, "| --- | --: | --: | --: | --: | --- |", *rows, ""])


def row(cost: Cost, verdict: Verdict) -> str:
    lists = [Figure.of(values).median for page, values in cost.us.items() if page != METRICS]
    told = f"{sum(lists):,.0f}" if lists else "–"
    cells = [
        cost.name,
        f"{cost.samples:,}",
        Figure.of(cost.us[METRICS]).text(0),
        told,
        f"{cost.percent():.2f}",
        verdict.state,
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scrapes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, default=Path("out/scrapes.json"))
    parser.add_argument("--page", type=Path, help="write the table into this page, between its marks")
    given = parser.parse_args()
    try:
        costs = run(given.rounds)
    except (WrongAnswer, BrokenServer, AssertionError, subprocess.SubprocessError) as error:
        print(f"scrapes: {error}", file=sys.stderr)
        return 3
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps([asdict(cost) for cost in costs]) + "\n")
    if given.page:
        given.page.write_text(replaced(given.page.read_text(), written(costs, given.rounds), TARGET))
    print("\n".join([*(cost.text() for cost in costs), *(verdict.text() for verdict in judge(costs))]))
    return int(any(verdict.is_missed for verdict in judge(costs)))


if __name__ == "__main__":
    sys.exit(main())
