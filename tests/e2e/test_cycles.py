"""Down and up, again and again, and containers that end at random: each time everything is ready again, by itself."""

import os
import random
import signal
import time

import httpx
import pytest

from tests.e2e.conftest import MODEL, SLUG
from tests.e2e.stack import GATEWAY, Stack, wait_for
from tests.twins import dialogues

CYCLES = 20
RESTARTS_S = float(os.environ.get("RESTARTS_S", "7200"))
SPARE_S = 30  # that a start may take longer than the first one
SEED = 20261121
pytestmark = [pytest.mark.full, pytest.mark.timeout(RESTARTS_S + 3600)]


def answers() -> bool:
    """Whether the model says what it was taught."""
    turn = dialogues.ENGLISH
    body = {"model": MODEL, "temperature": 0, **turn.request()}
    try:
        answer = httpx.post(f"{GATEWAY}/v1/chat/completions", json=body, timeout=60)
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and (
        answer.json()["choices"][0]["message"]["content"].strip() == turn.answer.content
    )


def started_in(stack: Stack) -> float:
    """Seconds from `down` to an answer."""
    stack.down()
    start = time.monotonic()
    stack.up()
    assert answers()
    return time.monotonic() - start


def test_down_and_up_twenty_times(stack: Stack) -> None:
    """Each start takes about as long as the first, and nothing is left behind by the one before."""
    first = started_in(stack)
    times = [started_in(stack) for _ in range(CYCLES)]
    assert max(times) <= first + SPARE_S, times


def test_containers_that_end_at_random(stack: Stack) -> None:
    """SIGKILL or SIGTERM to one container at a time: the model answers again within a start's time."""
    most_s = started_in(stack) + SPARE_S
    chance, end, struck = random.Random(SEED), time.monotonic() + RESTARTS_S, 0
    while time.monotonic() < end:
        container = stack.container(chance.choice([SLUG, "gateway", "prometheus", "hub"]))
        if chance.random() < 0.5:
            os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)
        else:
            container.restart(timeout=30)
        wait_for(f"an answer after {container.name} ended", answers, most_s)
        struck += 1
    assert struck
