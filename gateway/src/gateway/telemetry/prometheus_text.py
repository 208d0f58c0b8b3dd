"""Prometheus' text format, written at once. Pure.

The library makes an object of every sample and takes seven times as long, for which the event loop and with it every
stream waits at each scrape.
"""

from collections.abc import Iterable, Sequence

Samples = Iterable[tuple[Sequence[str], float]]  # the labels' values, and the number


class Family:
    """One metric with its samples. `labels`: names in the order of the values; what is written has them sorted."""

    def __init__(self, kind: str, name: str, what: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._order = sorted(range(len(labels)), key=labels.__getitem__)
        self._labels = [labels[at] for at in self._order]
        self._lines = [f"# HELP {name} {what}\n# TYPE {name} {kind}\n"]

    def add(self, values: Sequence[str], number: float) -> None:
        """One sample."""
        labels = self.labelled(values)
        braces = f"{{{labels}}}" if labels else ""
        self._lines.append(f"{self._name}{braces} {float(number)!r}\n")

    def add_histogram(self, values: Sequence[str], buckets: Iterable[tuple[str, int]], total: float) -> None:
        """A histogram's samples. `buckets`: each bound, and how many values are at most that."""
        name, labels, count = self._name, self.labelled(values), 0
        more = f",{labels}" if labels else ""
        for bound, count in buckets:
            self._lines.append(f'{name}_bucket{{le="{bound}"{more}}} {float(count)!r}\n')
        braces = f"{{{labels}}}" if labels else ""
        self._lines.append(f"{name}_count{braces} {float(count)!r}\n{name}_sum{braces} {total!r}\n")

    def labelled(self, values: Sequence[str]) -> str:
        """Such as `model="m",route="r"`."""
        order = self._order
        return ",".join(
            [f'{name}="{escaped(values[at])}"' for name, at in zip(self._labels, order, strict=True)]
        )

    def text(self) -> str:
        return "".join(self._lines)


def gauge(name: str, what: str, labels: Sequence[str] = (), samples: Samples = ()) -> Family:
    return filled(Family("gauge", name, what, labels), samples)


def counter(name: str, what: str, labels: Sequence[str] = (), samples: Samples = ()) -> Family:
    return filled(Family("counter", f"{name}_total", what, labels), samples)


def filled(family: Family, samples: Samples) -> Family:
    for values, number in samples:
        family.add(values, number)
    return family


def histogram(name: str, what: str, labels: Sequence[str] = ()) -> Family:
    """`le` is told first: no label of ours comes before it."""
    return Family("histogram", name, what, labels)


def escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
