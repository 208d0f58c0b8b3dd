"""What a worker's /metrics says, and when its silence counts as standing still."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.vitals import Progress, Vitals, read_vitals, samples

PAGE = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 7.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 90.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="a name with spaces and } in it"} 1.2e+06
vllm:generation_tokens_total{engine="0",model_name="m"} 42.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 2.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 0.0"""


def test_a_page_is_read_over_all_engines() -> None:
    """Requests add up, the fullest cache counts, and the marks are all the numbers that progress changes."""
    vitals = read_vitals(PAGE)
    assert vitals == Vitals(4.0, 7.0, 0.5, 2.0, (42.0, 1.2e6, 0.25, 0.5, 2.0, 0.0))


def test_metrics_of_like_names_are_not_taken() -> None:
    """A longer name and a comment are other lines; a metric without labels is one."""
    page = b'# x vllm:n 1\nvllm:n_total 2\nvllm:n 3\nvllm:n{a="vllm:n"} 4\nother_vllm:n 5\n'
    assert samples(page, b"vllm:n") == [3.0, 4.0]


WITHOUT = PAGE.replace(b"num_requests_running", b"x")


@pytest.mark.parametrize("page", [b"", b"<html>", WITHOUT, b"vllm:num_requests_running"])
def test_a_page_of_another_kind_says_nothing(page: bytes) -> None:
    """Without the number of running requests there are no vitals."""
    assert read_vitals(page) is None


@given(some.binary(max_size=200), some.integers(0, len(PAGE)))
def test_no_page_breaks_the_reader(noise: bytes, at: int) -> None:
    """Whatever a worker sends, numbers are finite or left out."""
    vitals = read_vitals(PAGE[:at] + noise + PAGE[at:]) or Vitals()
    assert all(map(math.isfinite, [vitals.running, vitals.waiting, vitals.kv_use, *vitals.marks]))


BUSY = Vitals(running=1, finished=1, marks=(1.0, 0.5))
MOVED = Vitals(running=1, finished=1, marks=(2.0, 0.5))


def heard(*readings: Vitals, every_s: float = 2.0, in_flight: int = 0) -> Progress:
    """After these readings, so far apart."""
    progress = Progress()
    for number, vitals in enumerate(readings):
        progress = progress.heard(vitals, in_flight, number * every_s, longest_s=6.0)
    return progress


def test_standing_still_adds_up() -> None:
    """The same numbers again and again with requests running: the time counts, for both limits."""
    progress = heard(BUSY, BUSY, BUSY, BUSY)
    assert (progress.still_s, progress.hung_s) == (6.0, 6.0)


def test_any_change_is_progress() -> None:
    """One number that is another sets the clock back, a counter that was reset as well."""
    assert heard(BUSY, BUSY, BUSY, MOVED).still_s == 0.0
    assert heard(MOVED, MOVED, MOVED, BUSY).hung_s == 0.0


def test_nothing_is_judged_before_a_first_request_has_finished() -> None:
    """A first request may compile for minutes."""
    first = Vitals(running=1, finished=0, marks=(1.0, 0.5))
    assert heard(*[first] * 500).still_s == 0.0


def test_an_idle_worker_does_not_stand_still() -> None:
    """Nobody asks anything of it: nothing has to move."""
    idle = Vitals(running=0, finished=1, marks=(1.0, 0.0))
    assert heard(*[idle] * 500).still_s == 0.0


def test_our_requests_alone_make_suspicious_not_hung() -> None:
    """An engine that died idle goes on saying that nothing runs; our own requests on it count for suspicion only."""
    idle = Vitals(running=0, finished=1, marks=(1.0, 0.0))
    progress = heard(*[idle] * 4, in_flight=1)
    assert (progress.still_s, progress.hung_s) == (6.0, 0.0)


def test_a_gateway_that_slept_blames_nobody() -> None:
    """An hour between two readings counts as the longest gap, not as an hour."""
    assert heard(BUSY, BUSY, every_s=3600).hung_s == 6.0


def test_time_without_a_reading_is_not_judged() -> None:
    """What was not said is not held against the worker."""
    progress = heard(BUSY, BUSY).silent(100.0).heard(BUSY, 0, 102.0, 6.0)
    assert progress.hung_s == 4.0
