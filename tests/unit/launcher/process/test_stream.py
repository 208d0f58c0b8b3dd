"""vLLM's bytes pass through unchanged, cut only where a line or a redraw ends."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pytest

from launcher.process.process import Stream


class Pipe:
    """A stream with the writing end in the test's hand."""

    def __init__(self) -> None:
        reader, self.writer = os.pipe()
        self.sink = io.BytesIO()
        self.stream = Stream(reader, self.sink)

    def write(self, data: bytes) -> list[str]:
        """What vLLM prints; returns the lines the stream completes."""
        os.write(self.writer, data)
        return self.stream.pump()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe whose both ends are closed afterwards."""
    pipe = Pipe()
    yield pipe
    if pipe.stream.open:
        pipe.stream.close()
    os.close(pipe.writer)


def test_a_line_passes_when_it_is_whole(pipe: Pipe) -> None:
    """Half a line is held back, so that the launcher's own lines never land in it."""
    assert pipe.write(b"INFO half") == []
    assert pipe.sink.getvalue() == b""
    assert pipe.write(b" a line\nnext") == ["INFO half a line"]
    assert pipe.sink.getvalue() == b"INFO half a line\n"


def test_a_progress_bar_is_redrawn_at_once(pipe: Pipe) -> None:
    """A carriage return ends a redraw, as tqdm prints them, and counts as a line."""
    assert pipe.write(b"bar:  10%\rbar:  20%") == ["bar:  10%"]
    assert pipe.sink.getvalue() == b"bar:  10%\r"


def test_bytes_that_are_no_text_pass_unchanged(pipe: Pipe) -> None:
    """Decoding is for the observer only."""
    assert pipe.write(b"\xff\xfe ok\n") == ["�� ok"]
    assert pipe.sink.getvalue() == b"\xff\xfe ok\n"


def test_a_line_without_end_does_not_fill_the_memory(pipe: Pipe) -> None:
    """Beyond 64 KiB it passes in parts."""
    for _ in range(3):
        pipe.write(b"x" * 30_000)
    assert len(pipe.sink.getvalue()) == 90_000


def test_the_last_half_line_is_passed_at_the_end(pipe: Pipe) -> None:
    """What a dying process managed to print is not lost."""
    os.write(pipe.writer, b"Traceback\nValueErr")
    assert pipe.stream.close() == ["Traceback", "ValueErr"]
    assert pipe.sink.getvalue() == b"Traceback\nValueErr"
