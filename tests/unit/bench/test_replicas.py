"""Replicas by policy: prompts that share what the mix says, the same every time; a page that compares."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from bench.gpu import page, replicas
from bench.gpu.replicas import MIXES, POLICIES, Ask, Mix, requests
from tests.fake_worker import FakeWorker


@pytest.fixture
def worker() -> Iterator[FakeWorker]:
    started = FakeWorker(["alpha"]).start()
    yield started
    started.stop()


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: mix.key)
def test_beginnings_are_shared_equally(mix: Mix) -> None:
    asked = [one.prompt for one in requests(mix, 2)]
    shared = Counter(prompt[: mix.beginning_bytes] for prompt in asked)
    assert len(asked) == mix.prompts == len(set(asked))
    assert (len(shared), set(shared.values())) == (mix.beginnings, {mix.prompts // mix.beginnings})
    assert requests(mix, 2) == requests(mix, 2)


def test_four_replicas_are_asked_twice_as_fast_as_two() -> None:
    two, four = (requests(MIXES[0], count)[-1].at_s for count in (2, 4))
    assert two == pytest.approx(2 * four)
    assert two == pytest.approx(MIXES[0].prompts / (2 * MIXES[0].per_s), rel=0.2)


def test_every_answer_is_timed_to_its_first_event(worker: FakeWorker) -> None:
    asked = [Ask(0.05 * at, "hello", 8) for at in range(3)]
    firsts = asyncio.run(replicas.ask_all(f"http://{worker.address}", "alpha", asked))
    assert len(firsts) == 3
    assert all(0 < first < 5 for first in firsts)


def test_an_answer_that_is_none_ends_the_run(worker: FakeWorker) -> None:
    worker.refuses = 503
    with pytest.RaisesGroup(httpx.HTTPStatusError):
        asyncio.run(replicas.ask_all(f"http://{worker.address}", "alpha", [Ask(0, "hello", 8)]))


def test_two_replicas_and_all() -> None:
    assert [replicas.sizes(most) for most in (1, 2, 4)] == [[1], [2], [2, 4]]


def test_a_counter_of_all_workers() -> None:
    lines = ['vllm:x_total{engine="0"} 3.0', 'vllm:x_total{engine="0"} 4.0', "vllm:x_total_created{} 9"]
    assert replicas.total(lines, "vllm:x_total") == 7


def test_a_policy_is_compared_with_the_best() -> None:
    best = {"least_in_flight": 30.0, "prefix_affinity": 10.0, "round_robin": 20.0}
    runs = [
        {"replicas": 2, "mix": "turns", "policy": policy, "round": at, "ttft_p50_ms": best[policy] + at,
         "ttft_p99_ms": 50.0, "requests_per_s": 5.0, "cached": 0.5}
        for policy in POLICIES for at in range(3)
    ]  # fmt: skip
    record = {
        "date": "d", "load": "l", "vllm": "v", "slug": "s", "gpus": ["H, 1"], "runs": runs,
        "mixes": {"turns": {"title": "turns"}},
    }  # fmt: skip
    assert page.compared(record, 2, "turns", "round_robin")[2:4] == ["21.0", "1.909"]
    assert page.compared(record, 2, "turns", "prefix_affinity")[3] == "1.000"
    assert "| 2, turns | `prefix_affinity` | 11.0 |" in page.policies(record)[-1]
