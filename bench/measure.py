"""Carries the measurements out: rounds interleaved over all servers and scenarios, one at a time."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop

from bench.figures import quantile
from bench.load import Tally, WrongAnswer, connected, drive
from bench.processes import cpu_seconds, forget_peak, hold, let_run, peak_rss_mib
from bench.record import Row, Sample
from bench.scenarios import Scenario
from bench.servers import Kind, Server, check_log

WARM_UP_SHARE = 0.5  # of a scenario's times
OURS = frozenset({Kind.GATEWAY, Kind.GROWN, Kind.DIRECT})
SETTLED = 0.2  # share of a core below which a server rests
SETTLE_LOOK_S, SETTLE_S = 0.2, 20


def measure_all(servers: list[Server], scenarios: list[Scenario], rounds: int) -> list[Row]:
    """All rounds, interleaved, so that a busy minute of the host falls on every row alike; a warm-up goes first.

    Raises WrongAnswer for a server of ours; a peer that fails in a scenario is noted and left out of it from then on.
    """
    pairs = [(scenario, server) for scenario in scenarios for server in servers if scenario.takes(server)]
    rows = [Row(scenario.key, server.key) for scenario, server in pairs]
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}" if number else "warming up", file=sys.stderr, flush=True)
        for row, (scenario, server) in zip(rows, pairs, strict=True):
            with awake(server):
                add_round(row, server, scenario, number)
    return rows


def add_round(row: Row, server: Server, scenario: Scenario, number: int) -> None:
    """Measures one round, unless the row has failed before or has rounds enough; round 0 only warms up."""
    if row.failure or (server.rounds is not None and number > server.rounds):
        return
    try:
        sample = measure(server, scenario, 1 if number else WARM_UP_SHARE)
    except WrongAnswer as error:
        if server.kind in OURS:
            raise WrongAnswer(f"{server.name}, {scenario.title}: {error}") from error
        row.failure = str(error)
        print(f"{server.name} fails: {scenario.title}: {error}", file=sys.stderr, flush=True)
    else:
        row.samples += [sample] if number else []
    settle(server)


@contextmanager
def awake(server: Server) -> Iterator[None]:
    """Lets a server run that is held at all other times: the probes of one with 64 workers would cost the others."""
    if server.kind is not Kind.GROWN:
        yield
        return
    let_run(server.pid)
    settle(server)
    try:
        yield
    finally:
        hold(server.pid)


def measure(server: Server, scenario: Scenario, share: float) -> Sample:
    """One round, or that share of its times. Raises WrongAnswer, and BrokenServer if a request was not logged."""
    forget_peak(server.pid)
    tally = uvloop.run(run_load(server, scenario, share))
    check_log(server, tally.answers)
    return to_sample(tally, scenario.units, peak_rss_mib(server.pid))


async def run_load(server: Server, scenario: Scenario, share: float = 1) -> Tally:
    """One round's load; its cost is the server's CPU seconds."""
    async with connected(scenario.plan(server), "127.0.0.1", server.port) as clients:
        ramp_s, seconds = scenario.ramp_s * share, scenario.seconds * share
        return await drive(clients, ramp_s, seconds, lambda: cpu_seconds(server.pid))


def to_sample(tally: Tally, units: int, peak_rss: float) -> Sample:
    """The figures of one round."""
    done, (first, last) = tally.window_answers * units, tally.counted()
    return Sample(
        us_per_unit=tally.window_cost / done * 1e6,
        units_per_s=done / tally.seconds,
        p50_ms=quantile(last, 0.50) * 1e3,
        p99_ms=quantile(last, 0.99) * 1e3,
        ttfb_p50_ms=quantile(first, 0.50) * 1e3,
        ttfb_p99_ms=quantile(first, 0.99) * 1e3,
        peak_rss_mib=peak_rss,
        pieces=tally.pieces / tally.answers,
    )


def settle(server: Server) -> None:
    """Waits, within bounds, until the server has nothing left to do, so that its leftovers burden no other."""
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        before = cpu_seconds(server.pid)
        time.sleep(SETTLE_LOOK_S)
        if cpu_seconds(server.pid) - before < SETTLED * SETTLE_LOOK_S:
            return
