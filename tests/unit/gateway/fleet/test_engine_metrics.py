"""What a worker's /metrics says, and what of it is progress. The launcher has the same module (tests/contract)."""

import math
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.fleet.engine_metrics import MAX_SAMPLES, EngineMetrics, read_metrics, samples

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
    metrics = read_metrics(PAGE)
    assert metrics == EngineMetrics(4.0, 7.0, 0.5, 2.0, marks=(42.0, 1.2e6, 0.25, 0.5, 2.0, 0.0))


AWAKE = b'\nvllm:engine_sleep_state{engine="0",model_name="m",sleep_state="awake"} %b'
OFFLOADED = b'\nvllm:engine_sleep_state{engine="0",model_name="m",sleep_state="weights_offloaded"} %b\n'


@pytest.mark.parametrize(("awake", "offloaded", "tells"), [(b"1.0", b"0.0", True), (b"0.0", b"1.0", False)])
def test_an_engine_that_sleeps_says_so(awake: bytes, offloaded: bytes, tells: bool) -> None:
    """Its standing still then means nothing."""
    metrics = read_metrics(PAGE + AWAKE % awake + OFFLOADED % offloaded)
    assert metrics is not None
    assert metrics.tells is tells


def test_metrics_of_like_names_are_not_taken() -> None:
    """A longer name and a comment are other lines; a metric without labels is one."""
    page = b'# x vllm:n 1\nvllm:n_total 2\nvllm:n 3\nvllm:n{a="vllm:n"} 4\nother_vllm:n 5\n'
    assert samples(page, b"vllm:n") == [3.0, 4.0]


WITHOUT = PAGE.replace(b"num_requests_running", b"x")


@pytest.mark.parametrize("page", [b"", b"<html>", WITHOUT, b"vllm:num_requests_running"])
def test_a_page_of_another_kind_says_nothing(page: bytes) -> None:
    """Without the number of running requests there is no reading."""
    assert read_metrics(page) is None


@given(some.binary(max_size=200), some.integers(0, len(PAGE)))
def test_no_page_breaks_the_reader(noise: bytes, at: int) -> None:
    """Whatever a worker sends, numbers are finite or left out."""
    metrics = read_metrics(PAGE[:at] + noise + PAGE[at:]) or EngineMetrics()
    assert all(map(math.isfinite, [metrics.running, metrics.waiting, metrics.kv_use, *metrics.marks]))


HOSTILE = {
    "samples": b'vllm:num_requests_running{engine="0"} 1.0\n' * 200_000,
    "names alike": b"vllm:num_requests_running_not 1\n" * 250_000,
    "one line": b"vllm:num_requests_running " + b"1" * 8_000_000,
    "brackets": b"} " * 4_000_000,
}


@pytest.mark.parametrize("page", HOSTILE.values(), ids=HOSTILE)
def test_no_page_takes_long(page: bytes) -> None:
    """What a worker says is read in a moment, whatever it is: the gateway's loop and process 1 do it."""
    began = time.process_time()
    read_metrics(page)
    assert time.process_time() - began < 0.05


def test_more_samples_than_engines_can_have_are_left() -> None:
    """So many of one metric are read, and no more."""
    assert len(samples(b"vllm:n 1\n" * (MAX_SAMPLES + 5), b"vllm:n")) == MAX_SAMPLES


BUSY = EngineMetrics(running=1, finished=3, marks=(40.0, 900.0, 0.25, 3.0))
CASES = {
    "nothing changed": (BUSY, BUSY, False, True),
    "a token": (BUSY, replace(BUSY, marks=(41.0, 900.0, 0.25, 3.0)), True, False),
    "a prompt": (BUSY, replace(BUSY, marks=(40.0, 999.0, 0.25, 3.0)), True, False),
    "cache filled": (BUSY, replace(BUSY, marks=(40.0, 900.0, 0.26, 3.0)), True, False),
    "cache emptied": (BUSY, replace(BUSY, marks=(40.0, 900.0, 0.24, 3.0)), True, False),
    "a request finished": (BUSY, replace(BUSY, finished=4, marks=(40.0, 900.0, 0.25, 4.0)), True, False),
    "requests came": (BUSY, replace(BUSY, running=9, waiting=9), False, True),
    "started anew": (BUSY, EngineMetrics(marks=(0.0, 0.0, 0.0, 0.0)), True, False),
    "none finished yet": (replace(BUSY, finished=0), replace(BUSY, finished=0), False, False),
    "only those from before": (replace(BUSY, before=3), replace(BUSY, before=3), False, False),
    "one more than those": (replace(BUSY, before=2), replace(BUSY, before=2), False, True),
    "put to sleep": (BUSY, replace(BUSY, asleep=1), False, False),
    "just awake": (replace(BUSY, asleep=1), BUSY, False, False),
    "says nothing": (EngineMetrics(), EngineMetrics(), False, False),
}


@pytest.mark.parametrize(("before", "after", "moved", "stood"), CASES.values(), ids=CASES)
def test_what_is_progress_and_what_a_standstill(
    before: EngineMetrics, after: EngineMetrics, moved: bool, stood: bool
) -> None:
    """Any of the four numbers, in either direction; requests that only come or leave are none."""
    assert (after.moved_since(before), after.stood_still_since(before)) == (moved, stood)
