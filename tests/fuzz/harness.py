"""What the targets share: how an input is cut into pieces, and the run itself."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris


def pieces(data: bytes) -> list[bytes]:
    """The input's first byte counts the sizes that follow it; the rest is cut into pieces of these sizes."""
    count = data[0] % 16 if data else 0
    sizes, rest = data[1 : 1 + count], data[1 + count :]
    parts = []
    for size in sizes:
        parts.append(rest[:size])
        rest = rest[size:]
    return [*parts, rest]


class Slowest:
    """Tells of the slowest step whenever it was slower than the one before: at the end nothing runs any more."""

    def __init__(self) -> None:
        self._worst = 0.0

    def note(self, seconds: float) -> None:
        if seconds > self._worst:
            self._worst = seconds
            print(f"slowest step: {seconds * 1000:.1f} ms", file=sys.stderr, flush=True)


def main(target: Callable[[bytes], None], seeds: Iterable[bytes]) -> None:
    """Fuzzes `target`; the first argument is the folder of its corpus, the others are libFuzzer's."""
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
