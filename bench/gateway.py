"""What the gateway costs, side by side with its peers: CPU time a request and a chunk, latency, memory.

Each server runs alone on one core; the load generator and the mock worker share another, or have one each of four. CPU
time is the process's own, user and system, over the work done: on a shared host it is nearly stable, requests/s is not.
The gateway runs as shipped. Peers are those that `make bench-peers` has installed.

Exit codes: 0 measured · 1 a bar was missed · 2 this machine cannot be measured on, or no such server or scenario ·
3 an answer or a server of ours was wrong.
"""

import argparse
import datetime
import os
import platform
import resource
import signal
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from bench.bars import judge
from bench.host import host
from bench.load import WrongAnswer
from bench.measure import measure_all
from bench.peers import PEERS, Peer, peer_started
from bench.processes import Layout, layout, pinned
from bench.record import APART, SHARED, Entrant, Record, Title, save
from bench.report import report
from bench.scenarios import Scenario, all_scenarios
from bench.servers import (
    GROWN_FLEETS,
    MAIN_FLEET,
    BrokenServer,
    Fleet,
    Kind,
    Server,
    gateway_started,
    mock_started,
)

FILES = 8192  # open files that a thousand streams need, and room
DIRECT = "direct"


class Unknown(Exception):
    """No server or scenario has that name; the message lists those that there are."""


def start_all(
    stack: ExitStack, folder: Path, cores: Layout, wanted: set[str]
) -> tuple[list[Server], list[Entrant]]:
    """Starts the servers of those keys, and says which peers are absent and why. Raises BrokenServer for ours."""
    direct, ports = stack.enter_context(mock_started(folder, cores.mock))
    ours = [fleet for fleet in fleets() if fleet.key in wanted]
    servers = [stack.enter_context(gateway_started(folder, cores.servers, fleet, ports)) for fleet in ours]
    absent = []
    for peer in (peer for peer in PEERS if peer.key in wanted):
        try:
            servers.append(start_peer(stack, peer, folder, cores.servers[0], ports[0]))
        except BrokenServer as error:
            print(f"bench: {error}", file=sys.stderr)
            absent.append(Entrant(peer.key, peer.name, peer.kind, str(error)))
    return [*servers, *([direct] if DIRECT in wanted else [])], absent


def start_peer(stack: ExitStack, peer: Peer, folder: Path, core: int, worker_port: int) -> Server:
    if not peer.is_installed:
        raise BrokenServer(f"{peer.key} is not installed: make bench-peers")
    return stack.enter_context(peer_started(peer, folder, core, worker_port))


def all_keys() -> list[str]:
    return [fleet.key for fleet in fleets()] + [peer.key for peer in PEERS] + [DIRECT]


def fleets() -> tuple[Fleet, ...]:
    return (MAIN_FLEET, *GROWN_FLEETS)


def chosen(given: str | None, known: list[str], what: str) -> list[str]:
    """Those of `known` that a comma-separated option names; all without one. Raises Unknown."""
    names = given.split(",") if given else known
    if unknown := [name for name in names if name not in known]:
        raise Unknown(f"no {what} is called {', '.join(unknown)}; there are: {', '.join(known)}")
    return [name for name in known if name in names]


def measure_here(given: argparse.Namespace, cores: Layout) -> Record:
    """Starts everything, measures, and ends it. Raises BrokenServer, WrongAnswer, Unknown."""
    keys = chosen(given.scenarios, [scenario.key for scenario in all_scenarios()], "scenario")
    scenarios = [scenario for scenario in all_scenarios() if scenario.key in keys]
    wanted = {key for key in chosen(given.servers, all_keys(), "server") if takes_part(key, scenarios)}
    with tempfile.TemporaryDirectory(prefix="octet-bench-") as folder, ExitStack() as stack:
        servers, absent = start_all(stack, Path(folder), cores, wanted)
        with pinned({cores.load}):
            rows = measure_all(servers, scenarios, given.rounds)
    entrants = [Entrant(server.key, server.name, server.kind) for server in servers]
    titles = [Title(scenario.key, scenario.title, scenario.unit) for scenario in scenarios]
    return Record(facts(given.rounds, cores), titles, entrants + absent, rows)


def takes_part(key: str, scenarios: list[Scenario]) -> bool:
    """Whether any scenario takes the server of that key."""
    kinds = {fleet.key: Kind.GROWN for fleet in GROWN_FLEETS} | {
        MAIN_FLEET.key: Kind.GATEWAY,
        DIRECT: Kind.DIRECT,
    }
    kinds |= {peer.key: peer.kind for peer in PEERS}
    return any(key in scenario.servers or kinds[key] in scenario.servers for scenario in scenarios)


def facts(rounds: int, cores: Layout) -> dict[str, str]:
    """When and where this was measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "rounds": str(rounds),
        "cores": SHARED if cores.is_shared else APART,
        "host": host(),
        "python": f"Python {platform.python_version()}, uvloop {version('uvloop')}",
    }


def default_rounds() -> int:
    """Fewer where there is nobody to compare with."""
    return 7 if any(peer.is_installed for peer in PEERS) else 5


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description="What the gateway costs.")
    scenarios = ", ".join(scenario.key for scenario in all_scenarios())
    parser.add_argument(
        "--rounds",
        type=int,
        default=default_rounds(),
        help="rounds, whose medians count (default 7; 5 without peers)",
    )
    parser.add_argument("--servers", metavar="A,B", help=f"only these of: {', '.join(all_keys())}")
    parser.add_argument("--scenarios", metavar="A,B", help=f"only these of: {scenarios}")
    parser.add_argument("--max-us-per-request", type=float, metavar="US", help="fail above this median")
    parser.add_argument(
        "--max-us-per-chunk", type=float, metavar="US", help="fail above this median, at 200 streams"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there")
    return parser.parse_args()


def run(given: argparse.Namespace, cores: Layout) -> int:
    """Measures, prints the report and returns the exit code."""
    record = measure_here(given, cores)
    verdicts = judge(record, given.max_us_per_request, given.max_us_per_chunk)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        save(given.json, record)
    print(report(record, verdicts))
    return 1 if any(verdict.is_missed for verdict in verdicts) else 0


def main() -> int:
    given, cores = parse_arguments(), sorted(os.sched_getaffinity(0))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with this process
    if len(cores) < 2:
        return fail(
            "two cores are needed, one for the servers and one for their load; give this process two", 2
        )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < FILES:
        return fail(
            f"a thousand streams need {FILES} open files; this process may have {hard} (ulimit -Hn)", 2
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        return run(given, layout(cores))
    except Unknown as error:
        return fail(str(error), 2)
    except (WrongAnswer, BrokenServer) as error:
        return fail(str(error), 3)
    except KeyboardInterrupt:
        return fail("interrupted", 130)


def fail(message: str, code: int) -> int:
    print(f"bench: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
