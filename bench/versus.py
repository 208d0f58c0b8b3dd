"""What a request and a chunk cost one build of the gateway against another, in turns in one run.

usage: python -m bench.versus OLD NEW [--turns 40] [--request 1.10] [--chunk 1.03] [--at-once] [--limits]
With --limits, NEW has a key file, whose key has every limit: with the same folder twice, what keys and limits cost.
OLD and NEW are folders with a compiled gateway (`scripts/compile-gateway` makes out/compiled). Both run
all the while on one core. The load goes to one and then to the other, and every pair of turns gives one ratio of their
CPU times. With --at-once each gets half of the connections at the same time, so that both meet the same moment of the
host: the ratios differ by a third as much, and what they cost each other falls on both. The report has the median of
the ratios and its 95 % interval, which follows from their order alone.
Exit codes: 0 each bar holds, or its interval lies on both sides (inconclusive) · 1 one is missed · 3 a server broke.
"""

import argparse
import asyncio
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import uvloop

from bench.figures import Figure
from bench.load import Tally, WrongAnswer
from bench.measure import run_load, settle, to_sample
from bench.processes import layout, pinned
from bench.scenarios import JSON, MANY, Scenario, all_scenarios
from bench.servers import MAIN_FLEET, BrokenServer, Kind, Server, gateway_started, mock_started

SHARE = 0.5  # of a scenario's usual time: a turn short enough that both have the same moment of the host
CONFIDENCE = 0.95


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Of the median, with at least 95 % confidence, whatever the distribution (the sign test's interval)."""
    count, found = len(ratios), sorted(ratios)
    outside, cut = 0.0, 0
    while cut < count // 2:
        outside += 2 * math.comb(count, cut) / 2**count
        if outside > 1 - CONFIDENCE:
            break
        cut += 1
    cut = max(cut - 1, 0)
    return found[cut], found[count - 1 - cut]


def verdict(ratios: Sequence[float], bar: float) -> str:
    """`holds` or `missed` where the whole interval lies on one side of the bar, else `inconclusive`.

    Fewer than six ratios are always inconclusive: not even all of them together make an interval of that confidence.
    """
    if 2 / 2 ** len(ratios) > 1 - CONFIDENCE:
        return "inconclusive"
    low, high = interval(ratios)
    if high <= bar:
        return "holds"
    return "missed" if low > bar else "inconclusive"


def started(
    stack: ExitStack, build: Path, name: str, folder: Path, core: int, ports: list[int], *, limited: bool = False
) -> Server:  # fmt: skip
    """A gateway of that build. Raises BrokenServer."""
    fleet = replace(MAIN_FLEET, key=name, name=name, limited=limited)
    with patch.dict(os.environ, PYTHONPATH=str(build.resolve())):
        server = stack.enter_context(gateway_started(folder, [core], fleet, ports))
    return replace(server, kind=Kind.GATEWAY, log=None, models=server.models[:1])


def turn(server: Server, scenario: Scenario) -> float:
    """CPU microseconds a unit of work. Raises WrongAnswer."""
    tally = uvloop.run(run_load(server, scenario, SHARE))
    settle(server)
    return to_sample(tally, scenario.units, 0).us_per_unit


def turn_of_both(servers: tuple[Server, Server], scenario: Scenario) -> dict[str, float]:
    """CPU microseconds a unit of work, of each server by its key; each has half the load, both at the same time.
    Raises WrongAnswer."""
    half = replace(scenario, connections=scenario.connections // 2)

    async def run() -> list[Tally]:
        return await asyncio.gather(*[run_load(server, half, SHARE) for server in servers])

    tallies = uvloop.run(run())
    for server in servers:
        settle(server)
    return {
        server.key: to_sample(tally, scenario.units, 0).us_per_unit
        for server, tally in zip(servers, tallies, strict=True)
    }


def compare(
    old: Server, new: Server, scenario: Scenario, turns: int, *, at_once: bool
) -> tuple[list[float], list[float]]:
    """Costs of both, turn by turn; who goes first changes. Raises WrongAnswer."""
    costs: dict[str, list[float]] = {old.key: [], new.key: []}
    for number in range(turns + 1):
        pair = (old, new) if number % 2 else (new, old)
        found = (
            turn_of_both(pair, scenario)
            if at_once
            else {server.key: turn(server, scenario) for server in pair}
        )
        for key, cost in found.items():
            costs[key] += [cost] if number else []  # the first pair warms up
    return costs[old.key], costs[new.key]


def measure(given: argparse.Namespace) -> int:
    """Raises BrokenServer, WrongAnswer."""
    cores = layout(sorted(os.sched_getaffinity(0)))
    bars = {JSON: given.request, MANY: given.chunk}
    missed = False
    with tempfile.TemporaryDirectory(prefix="octet-versus-") as folder, ExitStack() as stack:
        place = Path(folder)
        _, ports = stack.enter_context(mock_started(place, cores.mock))
        old = started(stack, given.old, "old", place, cores.servers[0], ports)
        new = started(stack, given.new, "new", place, cores.servers[0], ports, limited=given.limits)
        stack.enter_context(pinned({cores.load}))
        for scenario in (one for one in all_scenarios() if one.key in bars):
            before, after = compare(old, new, scenario, given.turns, at_once=given.at_once)
            ratios = [b / a for a, b in zip(before, after, strict=True)]
            said = verdict(ratios, bars[scenario.key])
            missed = missed or said == "missed"
            ratio = Figure(statistics.median(ratios), *interval(ratios))
            print(
                f"{scenario.title}: {ratio.text(3)} of old, bar "
                f"{bars[scenario.key]:g}: {said}; CPU us/{scenario.unit}: old {statistics.median(before):.1f} "
                f"(least {min(before):.1f}), new {statistics.median(after):.1f} (least {min(after):.1f}), "
                f"{len(ratios)} turns",
                flush=True,
            )
    return int(missed)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.versus", description=__doc__.split("\n")[0])
    parser.add_argument("old", type=Path, help="folder with a compiled gateway")
    parser.add_argument("new", type=Path, help="folder with the other one")
    parser.add_argument("--turns", type=int, default=40, help="pairs of turns for each scenario (default 40)")
    parser.add_argument("--request", type=float, default=1.10, help="bar: CPU a request, of the old one's")
    parser.add_argument("--chunk", type=float, default=1.03, help="bar: CPU a chunk, of the old one's")
    parser.add_argument(
        "--at-once", action="store_true", help="both at the same time, each with half the load"
    )
    parser.add_argument("--limits", action="store_true", help="NEW has a key file, whose key has every limit")
    try:
        return measure(parser.parse_args())
    except (WrongAnswer, BrokenServer) as error:
        print(f"versus: {error}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
