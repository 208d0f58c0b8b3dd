"""The pause doubles from its base to 600 s and starts over after a run that was ready for 600 s."""

from __future__ import annotations

from launcher.process.backoff import CAP_S, Backoff


def _crashed(backoff: Backoff, times: int) -> Backoff:
    for _ in range(times):
        backoff = backoff.after_crash(ready_s=0)
    return backoff


def test_the_pause_doubles_up_to_the_cap() -> None:
    """Crashes in a row wait 10, 20, 40 ... and never more than 600 seconds."""
    delays = [_crashed(Backoff(), times).delay_s for times in range(9)]
    assert delays == [0, 10, 20, 40, 80, 160, 320, 600, 600]


def test_any_number_of_crashes_stays_at_the_cap() -> None:
    """A worker that crashed ten thousand times still waits 600 seconds, without an overflow."""
    assert _crashed(Backoff(), 10_000).delay_s == CAP_S


def test_a_steady_run_starts_the_count_again() -> None:
    """After 600 s of readiness the next crash is the first again; a second less and it is not."""
    tired = _crashed(Backoff(), 5)
    assert tired.after_crash(ready_s=CAP_S).delay_s == 10
    assert tired.after_crash(ready_s=CAP_S - 1).delay_s == 320
