"""Down and up, again and again, and containers that end at random: each time everything is ready again, by itself."""

import os
import random
import signal
import time

import httpx
import pytest
from docker.models.containers import Container

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


def strike(container: Container, kill: bool) -> None:
    """SIGKILL to its process 1, or a stop and a start by Docker."""
    if not kill:
        container.restart(timeout=30)
        return
    pid = int(container.attrs["State"]["Pid"])
    assert pid > 1  # 0 would be this process' own group
    os.kill(pid, signal.SIGKILL)


def is_up(stack: Stack, service: str) -> bool:
    state = stack.container(service).attrs["State"]
    return state["Status"] == "running" and state.get("Health", {}).get("Status", "healthy") == "healthy"


def test_containers_that_end_at_random(stack: Stack) -> None:
    """SIGKILL or SIGTERM to one container at a time: it is up again, and the model answers, within a start's time."""
    most_s = started_in(stack) + SPARE_S
    chance, end, struck = random.Random(SEED), time.monotonic() + RESTARTS_S, 0
    while time.monotonic() < end:
        service = chance.choice([SLUG, "gateway", "prometheus", "hub"])
        before = started_at(stack, service)
        strike(stack.container(service), chance.random() < 0.5)
        wait_for(f"another start of {service}", lambda: started_at(stack, service) != before, 60)  # noqa: B023
        wait_for(f"{service}, up again", lambda: is_up(stack, service) and answers(), most_s)  # noqa: B023
        struck += 1
    assert struck


def started_at(stack: Stack, service: str) -> str:
    return str(stack.container(service).attrs["State"]["StartedAt"])
