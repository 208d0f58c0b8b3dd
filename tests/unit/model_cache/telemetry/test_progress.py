"""The counters: bytes, files, rate and remaining time, with a clock that the tests turn."""

import pytest

from model_cache.telemetry.progress import Progress, Work


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    """A run that downloads two files of 1000 bytes, one of which is there already."""
    progress = Progress("slug", "owner/name", clock)
    progress.enter("downloading", Work(2000, 2), already=Work(1000, 1))
    return progress


def test_what_was_there_counts_as_done(progress: Progress) -> None:
    """A resumed run starts where the last one stopped."""
    state = progress.state()

    assert (state.bytes_done, state.files_done) == (1000, 1)
    assert (state.rate_bytes_per_s, state.eta_s, state.current_file) == (0.0, None, None)


def test_rate_and_remaining_time(progress: Progress, clock: Clock) -> None:
    """100 bytes a second leave 8 seconds for 800 bytes."""
    progress.start("file", 1000)
    for _ in range(2):
        clock.now += 1
        progress.add("file", 100)

    state = progress.state()
    assert (state.bytes_done, state.rate_bytes_per_s, state.eta_s) == (1200, 100.0, 8.0)
    assert state.current_file == "file"


def test_resumed_bytes_do_not_count_as_speed(progress: Progress, clock: Clock) -> None:
    """Bytes of an earlier run are done, but were not moved now."""
    progress.start("file", 1000)
    progress.add("file", 500, moved=False)
    clock.now += 1
    progress.add("file", 100)

    state = progress.state()
    assert (state.bytes_done, state.rate_bytes_per_s, state.eta_s) == (1600, 100.0, 4.0)


def test_a_stall_shows(progress: Progress, clock: Clock) -> None:
    """When nothing moved for the length of the window the rate is 0 and no time is promised."""
    progress.start("file", 1000)
    clock.now += 1
    progress.add("file", 100)
    clock.now += 11

    state = progress.state()
    assert (state.rate_bytes_per_s, state.eta_s) == (0.0, None)


def test_only_the_last_seconds_count(progress: Progress, clock: Clock) -> None:
    """A slow start does not weigh on the rate for ever."""
    progress.start("file", 1000)
    for count in [0] * 60 + [50] * 11:
        clock.now += 1
        progress.add("file", count)

    assert progress.state().rate_bytes_per_s == 50.0


def test_a_file_started_over_loses_its_bytes(progress: Progress) -> None:
    """The SDK fetches a corrupted file again from its first byte."""
    progress.start("file", 1000)
    progress.add("file", 1000)
    assert progress.state().files_done == 2

    progress.start("file", 1000)
    assert (progress.state().bytes_done, progress.state().files_done) == (1000, 1)


def test_an_empty_file_is_done_when_it_starts(progress: Progress) -> None:
    """It has no bytes to wait for."""
    progress.start("empty", 0)

    assert progress.state().files_done == 2


def test_a_new_phase_counts_from_zero_and_keeps_retries(progress: Progress) -> None:
    """Verification goes through all bytes again; the retries are those of the run."""
    progress.retried()
    progress.enter("verifying", Work(2000, 2), already=Work())

    state = progress.state()
    assert (state.phase, state.bytes_done, state.bytes_total, state.retries) == ("verifying", 0, 2000, 1)


def test_a_failure_keeps_the_counters(progress: Progress) -> None:
    """The last answer of /progress says how far it came and why it ended."""
    progress.fail("the disk is full")

    state = progress.state()
    assert (state.phase, state.error, state.bytes_done) == ("failed", "the disk is full", 1000)
