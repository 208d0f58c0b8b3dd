"""Which failed request is made again, and when: a table."""

from datetime import UTC, datetime

import pytest

from model_cache.sources.retries import Failure, GiveUp, NoRetry, Wait, next_step, parse_retry_after

NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("failure", "has_answered", "step"),
    [
        (Failure(), False, Wait(1)),
        (Failure(500), False, Wait(1)),
        (Failure(503, 45), False, Wait(45)),
        (Failure(503, 0), False, Wait(1)),
        (Failure(429, 0.2), True, Wait(1)),
        (Failure(429), False, Wait(1)),
        (Failure(429, 20), True, Wait(20)),
        (Failure(408), True, Wait(1)),
        (Failure(401), True, Wait(1)),
        (Failure(403), True, Wait(1)),
        (Failure(403, 7), True, Wait(7)),
        (Failure(401), False, NoRetry()),
        (Failure(403), False, NoRetry()),
        (Failure(404), True, NoRetry()),
        (Failure(407), True, NoRetry()),
        (Failure(416), True, NoRetry()),
    ],
)
def test_a_first_failure(failure: Failure, has_answered: bool, step: Wait | NoRetry) -> None:
    """What passes is asked for again, when it says or soon; a refusal passes only where there was access before."""
    found = next_step(failure, tried=1, waited_s=0, most_s=300, has_answered=has_answered)
    assert found == step or (isinstance(found, NoRetry) and isinstance(step, NoRetry))


@pytest.mark.parametrize("told", [0.0, 0.5, 1.0])
def test_what_is_told_never_shortens_the_pause(told: float) -> None:
    """Be it 0, or a date that has passed: as if nothing were told, with the same limits."""
    for has_answered in (False, True):
        assert waits(Failure(429, told), 300, has_answered=has_answered) == waits(
            Failure(429), 300, has_answered=has_answered
        )


@pytest.mark.parametrize("has_answered", [False, True])
@pytest.mark.parametrize("told", [None, 0.0, 0.01, 1.0, 7.0, 29.0, 31.0, 299.0, 300.0, 301.0])
@pytest.mark.parametrize("most_s", [0.0, 1.0, 2.0, 60.0, 300.0])
def test_nothing_is_waited_for_longer_than_the_bound(
    told: float | None, most_s: float, has_answered: bool
) -> None:
    """Nor asked for more often than the ordinary pauses allow."""
    found = waits(Failure(429, told), most_s, has_answered=has_answered)
    assert sum(found) <= most_s
    assert all(pause >= max(min(2.0**tried, 30), told or 0) for tried, pause in enumerate(found))


def waits(failure: Failure, most_s: float, *, has_answered: bool) -> list[float]:
    """How long is waited until it is given up."""
    seconds: list[float] = []
    while True:
        step = next_step(
            failure, tried=len(seconds) + 1, waited_s=sum(seconds), most_s=most_s, has_answered=has_answered
        )
        if not isinstance(step, Wait):
            assert isinstance(step, GiveUp)
            return seconds
        seconds.append(step.seconds)


def test_one_that_was_known_is_waited_for_in_minutes() -> None:
    """Longer and longer, within the bound."""
    assert waits(Failure(403), 300, has_answered=True)[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert 240 < sum(waits(Failure(403), 300, has_answered=True)) <= 300


def test_a_stranger_is_asked_three_times() -> None:
    """An address that is wrong is told within seconds."""
    assert waits(Failure(), 300, has_answered=False) == [1, 2]


def test_what_asks_for_more_than_the_bound_is_given_up_at_once() -> None:
    """And the reason has both figures."""
    step = next_step(Failure(429, 3600), tried=1, waited_s=0, most_s=300, has_answered=True)
    assert isinstance(step, GiveUp)
    assert "3600 s" in step.why
    assert "MODEL_CACHE_RETRY_S is 300" in step.why


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45", 45),
        (" 0 ", 0),
        ("Fri, 27 Nov 2026 12:01:30 GMT", 90),
        ("Friday, 27-Nov-26 12:01:30 GMT", 90),
        ("Fri, 27 Nov 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("1e999", None),
        ("9" * 400, None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    """Anything else says nothing."""
    assert parse_retry_after(text, NOW) == seconds
