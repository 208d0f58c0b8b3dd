"""Draws a Grafana dashboard as one SVG, from what Prometheus answers to its queries.

usage: python -m observability.picture DASHBOARD.json --out FILE.svg [--prometheus http://127.0.0.1:9090] [--minutes 10]
                                       [--var name=value]
A variable is what it was saved with, or all; `--var` says otherwise. Panels with a `noValue` may be empty.
Exit codes: 0 every panel has something to show · 1 one has not, as the picture says in red and standard error by name ·
2 no dashboard, a variable without a value, or no Prometheus.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from observability.picture.draw import draw, is_idle, problem
from observability.picture.panels import SCRAPE_S, DashboardError, Span, read
from observability.picture.prometheus import NoPrometheus, Prometheus
from observability.picture.series import Filled

MOST_SAMPLES = 240  # of a line
PATIENCE_S = 30


def span_of(minutes: float, now: float) -> Span:
    """Up to the last whole step before `now`."""
    seconds = minutes * 60
    step = SCRAPE_S * max(1, -(-seconds // (SCRAPE_S * MOST_SAMPLES)))
    end = now // step * step
    return Span(end - seconds, end, step)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m observability.picture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dashboard", type=Path)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--var", action="append", default=[], type=pair, metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(words)
    if given.minutes <= 0:
        parser.error("--minutes: more than 0")
    return given


def pair(words: str) -> tuple[str, str]:
    name, equals, value = words.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{words}: NAME=VALUE")
    return name, value


def told(panels: Sequence[Filled]) -> list[str]:
    """A line for every panel without anything to show."""
    wrong = [f"{one.panel.title}: {problem(one)}" for one in panels if problem(one)]
    idle = [f"{one.panel.title}: nothing, as it may be" for one in panels if is_idle(one.panel, one)]
    return wrong + idle


def main(words: Sequence[str] | None = None) -> int:
    given = arguments(words)
    span = span_of(given.minutes, time.time())
    try:
        board = read(json.loads(given.dashboard.read_text()), dict(given.var), span)
        with httpx.Client(base_url=given.prometheus, timeout=PATIENCE_S, trust_env=False) as http:
            panels = [Prometheus(http).filled(panel, span) for panel in board.panels]
    except (OSError, ValueError, DashboardError, NoPrometheus) as error:
        sys.stderr.write(f"picture: {given.dashboard}: {error}\n")
        return 2
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(draw(board, panels, span))
    sys.stderr.writelines(f"picture: {given.dashboard}: {line}\n" for line in told(panels))
    return int(any(problem(one) for one in panels))


if __name__ == "__main__":
    sys.exit(main())
