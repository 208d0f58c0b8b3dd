"""Clients that leave at any moment, several at a time: the workers are freed within a second, and nothing is left."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from contextlib import suppress

import pytest

from tests.fake_worker import FakeWorker
from tests.integration.gateway.conftest import StartGateway
from tests.integration.gateway.harness import CHAT, Gateway, ask, post, wait_until

SEED = 1
AT_ONCE = 10
WITHIN_S = 30.0  # a second on an idle host
POOL_IDLE_S = 1.0
SPARE_FILES = 2
RESET = struct.pack("ii", 1, 0)
WANTS = (
    ask("alpha"),
    ask("alpha") | {"stream": True},
    ask("alpha", "json", hold=True),
    ask("alpha", "sse", hold=-1),
    ask("alpha", "sse", hold=2),
    ask("alpha", "sse", chunks=100_000, delay_s=0.001),
    ask("alpha", "sse", end="done_held"),
    ask("alpha", "flood", bytes=1 << 30),
    ask("alpha", "hang"),
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("clients", [100, pytest.param(500, marks=pytest.mark.full)])
def test_clients_that_leave_at_random_leave_nothing(
    start_gateway: StartGateway, own_worker: FakeWorker, clients: int
) -> None:
    """Many of them, in head, body, wait and answer: no answer goes on, no lease stays, no open file."""
    gateway, dice = start_gateway(GATEWAY_POOL_IDLE_S=POOL_IDLE_S), random.Random(SEED)
    visit(gateway, dice)
    before = settled(gateway, own_worker)
    for number in range(clients // AT_ONCE):
        visit(gateway, dice)
        wait_until(lambda: own_worker.running == 0, f"round {number} of seed {SEED}: workers freed", WITHIN_S)
    wait_until(lambda: gateway.in_flight() == 0, "every lease given back", WITHIN_S)
    after = settled(gateway, own_worker)
    assert abs(after - before) <= SPARE_FILES
    assert (own_worker.running, own_worker.seen.qsize() > clients // 2) == (0, True)
    assert gateway.http.post(CHAT, json=ask("alpha")).status_code == 200


def visit(gateway: Gateway, dice: random.Random) -> None:
    """Some clients come together; each sends as much and reads as much as it likes, and leaves when it likes."""
    clients = [begin(gateway, dice) for _ in range(AT_ONCE)]
    dice.shuffle(clients)
    for client in clients:
        time.sleep(dice.choice((0, 0, 0.002, 0.02)))
        read_some(client, dice)
        leave(client, dice)


def begin(gateway: Gateway, dice: random.Random) -> socket.socket:
    """A client that has sent its request, or, one in four, a part of it; a few send another one behind it."""
    request = post(json.dumps(dice.choice(WANTS)).encode())
    if dice.random() < 0.25:
        return gateway.connect(request[: dice.randrange(len(request))])
    return gateway.connect(request * dice.choice((1, 1, 1, 2)))


def read_some(client: socket.socket, dice: random.Random) -> None:
    client.settimeout(0.005)
    with suppress(TimeoutError):
        for _ in range(dice.choice((0, 0, 1, 3))):
            client.recv(dice.choice((1, 100, 65536)))


def leave(client: socket.socket, dice: random.Random) -> None:
    """In an orderly way, or with a reset."""
    if dice.random() < 0.3:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def settled(gateway: Gateway, worker: FakeWorker) -> int:
    """The gateway's open files once its idle connections to the worker have gone; the probes keep theirs."""
    wait_until(lambda: gateway.in_flight() == 0, "every lease given back")
    wait_until(lambda: len(worker.connections) <= 1, "the pool's connections closed")
    return gateway.open_files()
