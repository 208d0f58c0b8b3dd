"""What people and machines read on stdout."""

import io
import json
import threading
from dataclasses import replace

import pytest

from model_cache.telemetry.progress import Progress, ProgressState, Work
from model_cache.telemetry.report import Reporter, bar_line, human_bytes, json_line, renderer, text_line

STATE = ProgressState(
    slug="qwen3-0p6b-cpu",
    repo="Qwen/Qwen3-0.6B",
    phase="downloading",
    bytes_done=498_200_000,
    bytes_total=1_200_000_000,
    rate_bytes_per_s=85_100_000.0,
    eta_s=8.2,
    current_file="model.safetensors",
    files_done=3,
    files_total=12,
    retries=0,
    error=None,
)


def test_a_person_reads_amount_rate_and_remaining_time() -> None:
    """The line has what one looks for, in that order."""
    expected = "downloading    41%  498.2 MB of 1.2 GB  85.1 MB/s  0:00:08 left  model.safetensors"

    assert text_line(STATE, None) == expected


def test_on_a_terminal_a_bar_is_drawn() -> None:
    """As long as what has come, and never longer than its frame."""
    expected = (
        "[#########...............]  41%  498.2 MB of 1.2 GB  85.1 MB/s  0:00:08 left  model.safetensors"
    )
    full = replace(STATE, bytes_done=2 * STATE.bytes_total)

    assert bar_line(STATE) == f"downloading   {expected}"
    assert f"[{24 * '#'}]" in bar_line(full)


def test_a_stalled_download_promises_nothing() -> None:
    """Without a rate there is no remaining time."""
    stalled = replace(STATE, rate_bytes_per_s=0.0, eta_s=None)

    assert text_line(stalled, None) == "downloading    41%  498.2 MB of 1.2 GB  model.safetensors"


def test_a_remark_takes_the_place_of_the_numbers() -> None:
    """A remark is what matters at that moment."""
    assert text_line(replace(STATE, phase="ready"), "12 files") == "ready         12 files"


def test_a_failure_before_the_listing_names_the_repository() -> None:
    """There are no bytes to count yet."""
    assert (
        text_line(replace(STATE, phase="failed", bytes_total=0, files_total=0), None)
        == "failed        Qwen/Qwen3-0.6B"
    )


def test_a_machine_reads_every_field() -> None:
    """The JSON line is the state, a time and a remark."""
    line = json.loads(json_line(STATE, "remark"))

    assert line["time"].endswith("+00:00")
    assert (line["remark"], line["bytes_done"], line["eta_s"]) == ("remark", 498_200_000, 8.2)
    assert len(line) == 14


@pytest.mark.parametrize(
    ("style", "terminal", "expected"),
    [
        ("auto", True, text_line),
        ("auto", False, json_line),
        ("text", False, text_line),
        ("json", True, json_line),
    ],
)
def test_auto_means_text_on_a_terminal(style: str, terminal: bool, expected: object) -> None:
    """A fixed style does not ask what stdout is."""
    assert renderer(style, terminal=terminal) is expected


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_999, "1.0 MB"),
        (6.1e11, "610.0 GB"),
    ],
)
def test_bytes_in_decimal_units(count: float, text: str) -> None:
    """Units change before a number gets four digits."""
    assert human_bytes(count) == text


class Lines(io.StringIO):
    """A stream that tells when so many lines were written."""

    def __init__(self, awaited: int) -> None:
        super().__init__()
        self.enough = threading.Event()
        self._awaited = awaited

    def flush(self) -> None:
        """Called after each line."""
        if self.getvalue().count("\n") >= self._awaited:
            self.enough.set()


def test_lines_keep_coming_while_bytes_move() -> None:
    """During a download a line is written at every interval, without anyone asking."""
    stream = Lines(awaited=3)
    reporter = Reporter(Progress("slug", "owner/name"), stream, text_line)
    with reporter.periodic_lines(interval_s=0.01):
        reporter.enter("downloading", Work(10, 1))
        assert stream.enough.wait(5)

    assert set(stream.getvalue().splitlines()) == {"downloading     0%  0 B of 10 B"}
