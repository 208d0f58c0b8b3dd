"""The log writer: lines go out in order; nobody who reads slowly or not at all holds up who writes them."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from select import PIPE_BUF

import pytest

from gateway.telemetry.log_writer import LogWriter, pieces, write

WAIT_S = 40.0


def tell(count: int) -> bytes:
    return b"dropped %d\n" % count


class Pipe:
    """A pipe of one page, and a reader that begins when it is told to."""

    def __init__(self) -> None:
        self.out, self.end = os.pipe()
        fcntl.fcntl(self.end, fcntl.F_SETPIPE_SZ, 4096)
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)

    def read(self) -> None:
        self._reader.start()

    def lines(self) -> list[bytes]:
        """All that has been written, once the writing end is closed."""
        os.close(self.end)
        self._reader.join(WAIT_S)
        return b"".join(self._parts).splitlines(keepends=True)

    @property
    def received(self) -> int:
        """Bytes read so far."""
        return sum(map(len, self._parts))

    def _read(self) -> None:
        while part := os.read(self.out, 65536):
            self._parts.append(part)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.out)


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%0199d\n" % number for number in range(start, start + count)]


def test_lines_go_out_whole_and_in_order(pipe: Pipe) -> None:
    """However they are handed over; the end waits for the last of them."""
    writer, lines = LogWriter(partial(write, pipe.end), tell), numbered(1000)
    pipe.read()
    for at in range(0, 1000, 7):
        writer.put(lines[at : at + 7])
    writer.close(WAIT_S)
    assert pipe.lines() == lines
    assert writer.dropped == 0


def test_nobody_reads(pipe: Pipe) -> None:
    """Handing over never blocks; what has no room is dropped and counted, and told once somebody reads."""
    writer, lines = LogWriter(partial(write, pipe.end), tell, most_bytes=40_000), numbered(1000)
    start = time.monotonic()
    for line in lines:
        writer.put([line])
    assert time.monotonic() - start < WAIT_S
    assert 700 < writer.dropped < 1000
    pipe.read()
    writer.close(WAIT_S)
    written = pipe.lines()
    assert tell(writer.dropped) in written
    kept = [line for line in written if not line.startswith(b"dropped")]
    assert kept == sorted(kept)
    assert len(kept) + writer.dropped == 1000


def test_writing_goes_on_after_a_gap(pipe: Pipe) -> None:
    """Lines behind the gap come behind the line that tells of it."""
    writer = LogWriter(partial(write, pipe.end), tell, most_bytes=40_000)
    writer.put(numbered(150))
    writer.put(numbered(100))
    pipe.read()
    deadline = time.monotonic() + WAIT_S
    while pipe.received != 150 * 200 + len(tell(100)):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    writer.put([b"behind\n"])
    writer.close(WAIT_S)
    written = pipe.lines()
    assert written[:150] == numbered(150)
    assert written[150:] == [tell(100), b"behind\n"]


def test_the_end_is_not_held_up_for_ever(pipe: Pipe) -> None:
    """By a reader that never comes."""
    writer = LogWriter(partial(write, pipe.end), tell)
    writer.put(numbered(1000))
    start = time.monotonic()
    writer.close(0.05)
    assert time.monotonic() - start < WAIT_S
    pipe.read()
    writer.close(WAIT_S)
    assert pipe.lines() == numbered(1000)


def test_lines_that_cannot_be_written_are_counted() -> None:
    """A full disk costs lines, and nothing else."""
    with Path("/dev/full").open("wb") as full:
        writer = LogWriter(partial(write, full.fileno()), tell)
        writer.put(numbered(100))
        writer.close(WAIT_S)
    assert writer.dropped == 100


def test_a_descriptor_that_does_not_block(pipe: Pipe) -> None:
    """Whoever shares it may have made it so: all is written even then."""
    os.set_blocking(pipe.end, False)
    writer, lines = LogWriter(partial(write, pipe.end), tell), numbered(300)
    writer.put(lines)
    pipe.read()
    writer.close(WAIT_S)
    assert pipe.lines() == lines


def test_a_piece_is_what_a_pipe_takes_in_one() -> None:
    """Lines of several processes do not mix; only a line that is longer by itself may."""
    found = list(pieces([*numbered(100), b"x" * 9000 + b"\n", *numbered(3)]))
    assert b"".join(found) == b"".join([*numbered(100), b"x" * 9000 + b"\n", *numbered(3)])
    assert [len(piece) <= PIPE_BUF for piece in found].count(False) == 1
