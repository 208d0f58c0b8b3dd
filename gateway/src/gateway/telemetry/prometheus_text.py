"""Write Prometheus' text format, for `metrics.py`. Pure. The official library makes an object for every sample and
takes seven times as long, and all that time the event loop stands still at each scrape."""

from collections.abc import Iterable, Sequence

Samples = Iterable[tuple[Sequence[str], float]]  # the labels' values, and the number


class Family:
    """One metric with its samples. what: HELP text; labels: names in the order of the values; the text sorts them."""

    def __init__(self, kind: str, name: str, what: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._order = sorted(range(len(labels)), key=labels.__getitem__)
        self._labels = [labels[at] for at in self._order]
        self._lines = [f"# HELP {name} {what}\n# TYPE {name} {kind}\n"]

    def add(self, values: Sequence[str], number: float) -> None:
        """Add one sample. values: those of the labels."""
        labels = self.labelled(values)
        braces = f"{{{labels}}}" if labels else ""
        self._lines.append(f"{self._name}{braces} {float(number)!r}\n")

    def add_histogram(self, values: Sequence[str], buckets: Iterable[tuple[str, int]], total: float) -> None:
        """Add a histogram's samples. buckets: each bound, with the number of values up to it."""
        name, labels, count = self._name, self.labelled(values), 0
        more = f",{labels}" if labels else ""
        for bound, count in buckets:
            self._lines.append(f'{name}_bucket{{le="{bound}"{more}}} {float(count)!r}\n')
        braces = f"{{{labels}}}" if labels else ""
        self._lines.append(f"{name}_count{braces} {float(count)!r}\n{name}_sum{braces} {total!r}\n")

    def labelled(self, values: Sequence[str]) -> str:
        """Return label values as they stand between a sample's braces, such as `model="m",route="r"`."""
        ordered = zip(self._labels, self._order, strict=True)
        return ",".join([f'{name}="{escaped(values[at])}"' for name, at in ordered])

    def text(self) -> str:
        """Return the metric as it stands on the page: HELP, TYPE, and a line for each number."""
        return "".join(self._lines)


def gauge(name: str, what: str, labels: Sequence[str] = (), samples: Samples = ()) -> Family:
    """Return a gauge with its samples. what: its HELP text."""
    return filled(Family("gauge", name, what, labels), samples)


def counter(name: str, what: str, labels: Sequence[str] = (), samples: Samples = ()) -> Family:
    """Return a counter with its samples; its name gets `_total`, as Prometheus wants it."""
    return filled(Family("counter", f"{name}_total", what, labels), samples)


def filled(family: Family, samples: Samples) -> Family:
    """Return `family` with the samples added."""
    for values, number in samples:
        family.add(values, number)
    return family


def histogram(name: str, what: str, labels: Sequence[str] = ()) -> Family:
    """Make a histogram's family. Its label `le` comes first, as no other label of ours sorts before it."""
    return Family("histogram", name, what, labels)


def escaped(value: str) -> str:
    """Return a label's value with the characters escaped that would end it early."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
