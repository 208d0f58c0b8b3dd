"""A standstill is told only where requests wait for an engine that has worked before and makes no progress now."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.engine.engine_metrics import EngineMetrics
from launcher.engine.stall_detector import StallDetector

LIMIT_S, EVERY_S = 300.0, 5.0
MARKS = (40.0, 900.0, 0.25, 7.0)  # generated and prompt tokens, KV use, finished requests
BUSY = EngineMetrics(running=2, waiting=1, kv_use=0.25, finished=7, marks=MARKS)
IDLE = replace(BUSY, running=0, waiting=0)
MADE = (41.0, *MARKS[1:])  # a token later


def beat(
    detector: StallDetector, seconds: float, reading: EngineMetrics | None, *, asked: bool = False
) -> StallDetector:
    """Looks every few seconds that all find the same; None: no answer."""
    for _ in range(round(seconds / EVERY_S)):
        now = detector.at + EVERY_S
        detector = (
            detector.after_no_answer(now)
            if reading is None
            else detector.after_answer(reading, now, asked=asked)
        )
    return detector


@pytest.fixture
def detector() -> StallDetector:
    """A busy vLLM that has just moved."""
    return StallDetector(LIMIT_S, EVERY_S, at=0.0).after_answer(BUSY, 0.0)


def test_a_standstill_is_named_after_the_limit_and_not_before(detector: StallDetector) -> None:
    """What stands still, for how long, and with how many requests."""
    assert beat(detector, LIMIT_S - EVERY_S, BUSY).standstill is None
    said = beat(detector, LIMIT_S, BUSY).standstill
    assert said == (
        "generation tokens, prompt tokens, KV use and finished requests have not changed for 300 s "
        "with 2 requests running and 1 waiting"
    )


@pytest.mark.parametrize("at", range(4))
def test_any_change_is_progress(detector: StallDetector, at: int) -> None:
    """One of the four is enough, in either direction; the limit begins anew."""
    moved = replace(BUSY, marks=tuple(mark - 0.125 * (at == number) for number, mark in enumerate(MARKS)))
    assert beat(beat(detector, LIMIT_S - EVERY_S, BUSY), LIMIT_S, moved).standstill is None


@pytest.mark.parametrize("name", ["running", "waiting"])
def test_a_longer_queue_is_no_progress(detector: StallDetector, name: str) -> None:
    """Requests that only come, or only leave, do not move the engine."""
    detector = beat(detector, LIMIT_S - EVERY_S, BUSY)
    assert beat(detector, EVERY_S, replace(BUSY, **{name: 9})).standstill is not None


def test_a_long_prefill_is_progress(detector: StallDetector) -> None:
    """256k tokens in parts, each a minute: only the KV use changes, and that is enough."""
    for part in range(32):
        detector = beat(detector, 60, replace(BUSY, marks=(40.0, 900.0, 0.25 + part / 64, 7.0)))
        assert detector.standstill is None


def test_nothing_is_judged_before_a_first_request_has_finished() -> None:
    """It may compile kernels for longer than any limit; neither numbers nor silence mean anything yet."""
    new = StallDetector(LIMIT_S, EVERY_S, at=0.0)
    compiling = beat(new, 4 * LIMIT_S, EngineMetrics(running=1))
    assert compiling.standstill is None
    assert beat(compiling, 4 * LIMIT_S, None).standstill is None
    first = EngineMetrics(running=1, finished=1)
    assert beat(compiling, LIMIT_S, first).standstill is None  # the change itself was one look
    assert beat(compiling, LIMIT_S + EVERY_S, first).standstill is not None


@pytest.mark.parametrize("own", [1, 73])
def test_what_it_was_warmed_with_is_no_clients_request(own: int) -> None:
    """The launcher's own have finished; a client's first may still compile for longer than any limit."""
    warmed = replace(StallDetector(LIMIT_S, EVERY_S, at=0.0), own=own)
    compiling = beat(warmed, 4 * LIMIT_S, replace(BUSY, finished=own))
    assert compiling.standstill is None
    assert beat(compiling, 4 * LIMIT_S, None).standstill is None
    assert not beat(compiling, 4 * LIMIT_S, replace(IDLE, finished=own)).needs_token
    assert beat(compiling, LIMIT_S + EVERY_S, replace(BUSY, finished=own + 1)).standstill is not None


def test_an_idle_vllm_stands_still_as_long_as_it_likes(detector: StallDetector) -> None:
    """And the time counts from when it has work again."""
    detector = beat(detector, 10 * LIMIT_S, IDLE)
    assert detector.standstill is None
    assert beat(detector, LIMIT_S, BUSY).standstill is None
    assert beat(detector, LIMIT_S + EVERY_S, BUSY).standstill is not None


def test_an_engine_that_is_idle_for_half_the_limit_is_probed(detector: StallDetector) -> None:
    """It is asked for a token; the next doubt is as far away again."""
    idle = detector.after_answer(IDLE, 0.0)
    assert not beat(idle, LIMIT_S / 2 - EVERY_S, IDLE).needs_token
    doubtful = beat(idle, LIMIT_S / 2, IDLE)
    assert doubtful.needs_token
    assert not beat(doubtful.after_asking(), LIMIT_S / 2 - EVERY_S, IDLE).needs_token
    assert beat(doubtful.after_asking(), LIMIT_S / 2, IDLE).needs_token


def test_a_token_asked_for_is_work(detector: StallDetector) -> None:
    """An engine that does not make it stands still; one that has made it is idle again."""
    asked = beat(beat(detector, LIMIT_S, IDLE).after_asking(), EVERY_S, IDLE, asked=True)
    said = beat(asked, LIMIT_S, IDLE, asked=True).standstill
    assert said is not None
    assert said.endswith("with 0 requests running and 0 waiting but for the launcher's own")
    made = replace(IDLE, finished=8, marks=MADE)
    assert beat(beat(asked, LIMIT_S - EVERY_S, IDLE, asked=True), 2 * LIMIT_S, made).standstill is None


@pytest.mark.parametrize("reading", [EngineMetrics(), replace(IDLE, asleep=1)], ids=["new", "asleep"])
def test_who_cannot_tell_is_never_asked(reading: EngineMetrics) -> None:
    """A new vLLM would compile for us, one that was put to sleep would never answer."""
    detector = beat(
        StallDetector(LIMIT_S, EVERY_S, at=0.0).after_answer(IDLE, 0.0), LIMIT_S / 2 - EVERY_S, IDLE
    )
    assert not beat(detector, 3 * LIMIT_S, reading).needs_token
    assert beat(detector, 3 * LIMIT_S, replace(reading, running=1)).standstill is None


def test_silence_is_a_standstill(detector: StallDetector) -> None:
    """Whatever was known before: what waits behind it cannot be seen."""
    said = beat(detector, LIMIT_S, None).standstill
    assert said == "/metrics has not answered for 300 s; before, 2 requests running and 1 waiting"
    idle = detector.after_answer(IDLE, detector.at)
    assert beat(idle, LIMIT_S, None).standstill is not None


def test_silence_that_ends_counts_only_if_nothing_has_moved_meanwhile(detector: StallDetector) -> None:
    """A server that was too busy to answer is forgiven by its numbers."""
    silent = beat(detector, LIMIT_S - EVERY_S, None)
    assert beat(silent, EVERY_S, BUSY).standstill is not None
    assert beat(silent, EVERY_S, replace(BUSY, marks=MADE)).standstill is None


def test_the_launchers_own_sleep_is_not_vllms(detector: StallDetector) -> None:
    """A container paused for a day is not killed when it goes on."""
    assert detector.after_answer(BUSY, 86_400.0).standstill is None
    assert detector.after_no_answer(86_400.0).standstill is None


READINGS = st.builds(
    EngineMetrics,
    running=st.sampled_from([0, 1]),
    finished=st.sampled_from([0, 1]),
    marks=st.tuples(st.integers(0, 2), st.integers(0, 1)),
)
LOOKS = st.lists(st.none() | READINGS, max_size=60)


@given(LOOKS, st.integers(1, 10))
def test_a_verdict_needs_a_limit_full_of_looks_without_progress(
    looks: list[EngineMetrics | None], limit: int
) -> None:
    """Whatever the looks find: each of the last ones was silent, or busy with what the one before it had shown."""
    detector, seen = StallDetector(limit_s=float(limit), every_s=1.0, at=0.0), [EngineMetrics()]
    for at, reading in enumerate(looks, start=1):
        detector = detector.after_no_answer(at) if reading is None else detector.after_answer(reading, at)
        seen.append(reading or seen[-1])
        if detector.standstill:
            assert at >= limit
            assert len({known.marks for known in seen[-limit:]}) == 1
            assert seen[-1].finished == 1
            assert all(look is None or look.is_busy for look in looks[at - limit : at])
