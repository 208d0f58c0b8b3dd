"""Lines are written in their order, and whoever does not read them stops nobody."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from launcher.process.outlet import Outlet

PATIENCE_S = 60.0  # a slow host may make a test late
KEPT_BYTES = 400_000


class Pipe:
    """An outlet with the reading end in the test's hand."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.outlet = Outlet(self.writer, lambda lost: b"lost %d\n" % lost, KEPT_BYTES)
        self.seen = b""

    def read(self, end: bytes) -> bytes:
        """All that has come until something ends so."""
        while not self.seen.endswith(end):
            assert select.select([self.reader], [], [], PATIENCE_S)[0], "nothing more comes"
            self.seen += os.read(self.reader, 65536)
        return self.seen


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)


def test_lines_come_in_their_order(pipe: Pipe) -> None:
    for number in range(100):
        pipe.outlet.write(b"%d\n" % number)
    assert pipe.read(b"\n99\n") == b"".join(b"%d\n" % number for number in range(100))


@pytest.mark.parametrize("blocking", [True, False])
def test_what_is_not_read_is_dropped_and_counted(pipe: Pipe, blocking: bool) -> None:
    """Up to the bound it is kept; a line stands for the rest, where that was."""
    os.set_blocking(pipe.writer, blocking)
    line = b"x" * 999 + b"\n"
    for _ in range(1000):
        pipe.outlet.write(line)
    whole = pipe.read(b"000\n")
    pipe.outlet.write(b"after\n")
    lines = pipe.read(b"after\n").splitlines(keepends=True)
    kept, lost = lines.count(line), int(lines[-2].split()[1])
    assert KEPT_BYTES <= kept * len(line) <= KEPT_BYTES + 200_000
    assert kept * len(line) + lost == 1000 * len(line)
    assert len(lines) == kept + 2
    assert whole.endswith(b"lost %d\n" % lost)


def test_a_reader_that_is_gone_stops_nobody(pipe: Pipe) -> None:
    reader, writer = os.pipe()
    outlet = Outlet(writer, lambda lost: b"", KEPT_BYTES)
    os.close(reader)
    for _ in range(1000):
        outlet.write(b"x" * 1000)
        outlet.drain(PATIENCE_S)
    os.close(writer)


def test_the_last_words_are_waited_for_but_not_for_ever(pipe: Pipe) -> None:
    pipe.outlet.write(b"x" * 300_000)
    pipe.outlet.drain(0.05)
    assert len(pipe.read(b"x" * 1000)) <= 300_000
