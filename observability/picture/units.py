"""Values as a person reads them, by Grafana's names of units, and where axes have their ticks. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

DIGITS = 3  # that a value is written with
MINUTE, HOUR, DAY = 60, 3600, 86400
ROUND_SECONDS: Final = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    86400,
)


@dataclass(frozen=True, slots=True)
class Unit:
    """`steps`: what a value is divided by, smallest first, and what is written behind it then.

    `base`: what its ticks are round in: 10, 1024, or 60 (seconds).
    """

    steps: Sequence[tuple[float, str]]
    base: int = 10

    def step(self, value: float) -> tuple[float, str]:
        """The largest that is not above the value; zero is written in the unit itself."""
        ordinary = next((step for step in self.steps if step[0] == 1), self.steps[0])
        fitting = [step for step in self.steps if step[0] <= abs(value)]
        if not value:
            return ordinary
        return fitting[-1] if fitting else self.steps[0]


def thousands(suffix: str, *prefixes: str, base: int = 1000) -> Unit:
    """A unit with prefixes, each `base` times the one before."""
    names = [f" {prefix}{suffix}".rstrip() for prefix in ("", *prefixes)]
    return Unit(
        [(float(base) ** power, name) for power, name in enumerate(names)], 10 if base == 1000 else base
    )


def counted(suffix: str) -> Unit:
    """Something a second, thousands written as Grafana does."""
    return Unit([(1, f" {suffix}"), (1e3, f"K {suffix}"), (1e6, f"M {suffix}")])


SI, IEC = ("k", "M", "G", "T", "P"), ("Ki", "Mi", "Gi", "Ti", "Pi")
LARGE: Final = ((1, ""), (1e3, " K"), (1e6, " Mil"), (1e9, " Bil"), (1e12, " Tri"))
SECONDS: Final = (
    (1e-9, " ns"), (1e-6, " µs"), (1e-3, " ms"), (1, " s"), (MINUTE, " min"), (HOUR, " h"), (DAY, " d"),
)  # fmt: skip
UNITS: Final[Mapping[str, Unit]] = {
    "none": Unit([(1, "")]),
    "short": Unit(LARGE),
    "percentunit": Unit([(0.01, "%")]),
    "percent": Unit([(1, "%")]),
    "s": Unit(SECONDS, 60),
    "dtdurations": Unit(SECONDS, 60),
    "ms": Unit([(factor * 1e3, name) for factor, name in SECONDS[1:]]),
    "µs": Unit([(factor * 1e6, name) for factor, name in SECONDS[1:]]),
    "ns": Unit([(factor * 1e9, name) for factor, name in SECONDS]),
    "bytes": thousands("B", *IEC, base=1024),
    "decbytes": thousands("B", *SI),
    "Bps": thousands("B/s", *SI),
    "binBps": thousands("B/s", *IEC, base=1024),
    "bps": thousands("b/s", *SI),
    "reqps": counted("req/s"),
    "rps": counted("reads/s"),
    "ops": counted("ops/s"),
    "cps": counted("c/s"),
    "watt": thousands("W", *SI),
    "joule": thousands("J", *SI),
    "hertz": thousands("Hz", *SI),
    "celsius": Unit([(1, " °C")]),
}


def unit_of(name: str) -> Unit:
    """By Grafana's name; one that it does not know is written behind the value, as Grafana does."""
    own = name.removeprefix("suffix:")
    return UNITS.get(name) or Unit([(1, f" {own}"), (1e3, f" K {own}"), (1e6, f" Mil {own}")])


def said(value: float, unit: str = "short", decimals: int | None = None, digits: int = DIGITS) -> str:
    """A value with its unit, such as `1.5 KiB`."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞" if value < 0 else "NaN"
    factor, suffix = unit_of(unit).step(value)
    return number(value / factor, decimals, digits) + suffix


def number(value: float, decimals: int | None = None, digits: int = DIGITS) -> str:
    """To so many digits without idle zeros, or to as many decimals as are asked for."""
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    places = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    text = f"{value:,.{min(max(places, 0), 12)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ticks(low: float, high: float, most: int, unit: str = "short") -> list[float]:
    """Round values from the one at or below `low` to the one at or above `high`, about `most` of them."""
    step = round_step((high - low) / max(most, 1), unit_of(unit).base)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def round_step(least: float, base: int) -> float:
    """The smallest round step that is not below `least`."""
    if base == 60 and least > 1:
        return next((float(step) for step in ROUND_SECONDS if step >= least), DAY * math.ceil(least / DAY))
    if base == 1024 and least > 1:
        return float(2 ** math.ceil(math.log2(least)))
    power = 10.0 ** math.floor(math.log10(least))
    return next(round_ for times in (1, 2, 5, 10) if (round_ := times * power) >= least * (1 - 1e-9))


def labels(values: Sequence[float], unit: str, decimals: int | None = None) -> list[str]:
    """Ticks as texts; where a few digits do not tell them apart, in one step of the unit with decimals enough."""
    names = [said(value, unit, decimals, DIGITS + 1) for value in values]
    if len(set(names)) == len(names):
        return names
    factor, suffix = unit_of(unit).step(max(map(abs, values)))
    scaled = [value / factor for value in values]
    places = least_decimals(scaled)
    return [f"{value:,.{places}f}{suffix}" for value in scaled]


def least_decimals(values: Sequence[float]) -> int:
    """As few as leave every value what it is, as far as their distance matters."""
    spread = min((abs(after - before) for before, after in pairwise(values)), default=1) or 1
    enough = (places for places in range(12) if all(abs(round(v, places) - v) < spread / 100 for v in values))
    return next(enough, 12)


def time_ticks(begin: float, end: float, most: int) -> list[float]:
    """Round times within the span, in UTC."""
    step = round_step(max((end - begin) / max(most, 1), 1), 60)
    first = math.ceil(begin / step)
    return [number * step for number in range(first, math.floor(end / step) + 1)]


def clock(times: Sequence[float]) -> list[str]:
    """Such as `12:05`; with seconds where they matter, as dates where hours do not."""
    step = min((after - before for before, after in pairwise(times)), default=MINUTE)
    form = "%H:%M:%S" if step < MINUTE else "%d %b" if step >= DAY else "%H:%M"
    return [f"{datetime.fromtimestamp(time, UTC):{form}}" for time in times]
