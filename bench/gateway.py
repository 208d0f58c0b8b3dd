"""What the gateway costs: CPU time a request and a chunk, beside the same load sent straight to the mock worker.

The gateway runs as shipped, alone on one core; the load generator and the mock worker share another. CPU time is the
process's own, user and system, over the work done: on a shared host it is nearly stable, requests/s is not.

Exit codes: 0 measured · 1 a bar was missed · 2 this machine cannot be measured on · 3 an answer or a server was wrong.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from bench import answers
from bench.figures import Figure, quantile, table
from bench.load import Plan, Tally, WrongAnswer, connected, drive
from bench.processes import cpu_seconds, peak_rss_mib, pinned
from bench.servers import MODEL, BrokenServer, Server, check_log, started

CHUNKS = 100
INTERVAL_MS = 20
WARM_UP_S = 1.0
COLUMNS = {"units_per_s": 0, "p50_ms": 2, "p99_ms": 2, "ttfb_p50_ms": 2, "ttfb_p99_ms": 2, "pieces": 1}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. `unit`: the work whose CPU time is told; `units`: how much of it one answer is.

    ramp_s: over how long connections start, so that they stay evenly apart.
    """

    name: str
    unit: str
    units: int
    plan: Plan
    ramp_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one scenario against one server. Latencies are of whole answers; `pieces` is per answer."""

    us_per_unit: float
    units_per_s: float
    p50_ms: float
    p99_ms: float
    ttfb_p50_ms: float
    ttfb_p99_ms: float
    pieces: float


Samples = dict[tuple[str, str], list[Sample]]  # by the names of scenario and server


def all_scenarios(streams: int) -> list[Scenario]:
    whole = Plan(32, answers.chat_request(MODEL, stream=False), answers.completion(MODEL))
    streamed = Plan(streams, answers.chat_request(MODEL, stream=True), answers.stream_body(MODEL, CHUNKS))
    return [
        Scenario(f"JSON, 32 connections, {len(whole.body)}-byte body", "request", 1, whole, 0.2),
        Scenario(
            f"{streams} streams, {CHUNKS} chunks each, one every {INTERVAL_MS} ms",
            "chunk", CHUNKS, streamed, CHUNKS * INTERVAL_MS / 1000,
        ),
    ]  # fmt: skip


def measure_all(servers: list[Server], scenarios: list[Scenario], rounds: int, seconds: float) -> Samples:
    """All rounds, interleaved, so that a busy minute of the host falls on every row alike; a warm-up goes first."""
    samples: Samples = {}
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}" if number else "warming up", file=sys.stderr)
        for scenario in scenarios:
            for server in servers:
                sample = measure(server, scenario, seconds if number else WARM_UP_S)
                if number:
                    samples.setdefault((scenario.name, server.name), []).append(sample)
    return samples


def measure(server: Server, scenario: Scenario, seconds: float) -> Sample:
    tally = uvloop.run(run_load(server, scenario, seconds))
    check_log(server, tally.answers)
    return to_sample(tally, scenario)


async def run_load(server: Server, scenario: Scenario, seconds: float) -> Tally:
    """One round; its cost is the server's CPU seconds."""
    async with connected(scenario.plan, "127.0.0.1", server.port) as clients:
        return await drive(clients, scenario.ramp_s, seconds, lambda: cpu_seconds(server.pid))


def to_sample(tally: Tally, scenario: Scenario) -> Sample:
    """The figures of one round. An answer that is half done at the window's edge counts as half an answer."""
    done = tally.window_bytes / len(scenario.plan.expected) * scenario.units
    return Sample(
        us_per_unit=tally.window_cost / done * 1e6,
        units_per_s=done / tally.seconds,
        p50_ms=quantile(tally.latencies, 0.50) * 1e3,
        p99_ms=quantile(tally.latencies, 0.99) * 1e3,
        ttfb_p50_ms=quantile(tally.first_bytes, 0.50) * 1e3,
        ttfb_p99_ms=quantile(tally.first_bytes, 0.99) * 1e3,
        pieces=tally.pieces / tally.answers,
    )


def over_rounds(samples: list[Sample], field: str) -> Figure:
    return Figure.of([getattr(sample, field) for sample in samples])


def report(samples: Samples, scenarios: list[Scenario], servers: list[Server]) -> str:
    """One table a scenario, then the memory; medians, with the spread of the rounds in brackets."""
    rounds = len(samples[scenarios[0].name, servers[0].name])
    memory = ", ".join(f"{server.name} {peak_rss_mib(server.pid):.0f} MiB" for server in servers)
    tables = (section(samples, scenario, servers) for scenario in scenarios)
    return "\n\n".join([f"medians of {rounds} rounds (lowest-highest)", *tables, f"peak memory: {memory}"])


def summary(samples: Samples, scenarios: list[Scenario], server: Server) -> str:
    """The medians of the CPU time in one line."""
    costs = (
        f"{over_rounds(samples[scenario.name, server.name], 'us_per_unit').median:.1f} us/{scenario.unit}"
        for scenario in scenarios
    )
    return f"{server.name}: median CPU {', '.join(costs)}"


def section(samples: Samples, scenario: Scenario, servers: list[Server]) -> str:
    header = [scenario.name, f"CPU us/{scenario.unit}", f"{scenario.unit}s/s", "p50 ms", "p99 ms",
              "TTFB p50 ms", "TTFB p99 ms", "body pieces"]  # fmt: skip
    return table(header, [row(samples[scenario.name, server.name], server.name) for server in servers])


def row(samples: list[Sample], name: str) -> list[str]:
    cost = over_rounds(samples, "us_per_unit").text(1)
    return [name, cost, *(over_rounds(samples, field).text(digits) for field, digits in COLUMNS.items())]


def missed_bars(
    samples: Samples, scenarios: list[Scenario], server: Server, bars: list[float | None]
) -> list[str]:
    """One sentence for every scenario whose median costs more CPU than its bar (us per unit; None: no bar)."""
    missed = []
    for scenario, bar in zip(scenarios, bars, strict=True):
        cost = over_rounds(samples[scenario.name, server.name], "us_per_unit").median
        if bar is not None and cost > bar:
            missed.append(f"{server.name}: {cost:.1f} us/{scenario.unit}, the bar is {bar:g}")
    return missed


def save(path: Path, samples: Samples) -> None:
    """Every round of every row, as JSON."""
    rows = [
        {"scenario": scenario, "server": server, "rounds": [asdict(sample) for sample in rounds]}
        for (scenario, server), rounds in samples.items()
    ]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description="What the gateway costs.")
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds, of which the medians count (default 7)"
    )
    parser.add_argument(
        "--seconds", type=float, default=4, help="seconds of load a row and round (default 4)"
    )
    parser.add_argument("--streams", type=int, default=200, help="streams open at once (default 200)")
    parser.add_argument("--max-us-per-request", type=float, metavar="US", help="fail above this median")
    parser.add_argument("--max-us-per-chunk", type=float, metavar="US", help="fail above this median")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there")
    return parser.parse_args()


def run(given: argparse.Namespace, gateway_core: int, load_core: int) -> int:
    """Measures, prints the report and returns the exit code."""
    scenarios, bars = all_scenarios(given.streams), [given.max_us_per_request, given.max_us_per_chunk]
    with (
        tempfile.TemporaryDirectory(prefix="octet-bench-") as folder,
        started(Path(folder), gateway_core, load_core, CHUNKS, INTERVAL_MS) as servers,
        pinned(load_core),
    ):
        samples = measure_all(servers, scenarios, given.rounds, given.seconds)
        print(report(samples, scenarios, servers))
        print(summary(samples, scenarios, servers[0]))
    if given.json is not None:
        save(given.json, samples)
    missed = missed_bars(samples, scenarios, servers[0], bars)
    print("\n".join(missed), file=sys.stderr, end="\n" if missed else "")
    return 1 if missed else 0


def main() -> int:
    given, cores = parse_arguments(), sorted(os.sched_getaffinity(0))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with this process
    if len(cores) < 2:
        return fail(
            "two cores are needed, one for the gateway and one for its load; give this process two", 2
        )
    try:
        return run(given, cores[0], cores[1])
    except (WrongAnswer, BrokenServer) as error:
        return fail(str(error), 3)
    except KeyboardInterrupt:
        return fail("interrupted", 130)


def fail(message: str, code: int) -> int:
    print(f"bench: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
