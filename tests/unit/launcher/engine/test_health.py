"""`/health` is asked within one deadline for the whole answer, by whoever asks."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from launcher.engine import health
from launcher.engine.health import HealthPoll


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


def answered(server: socket.socket, answer: bytes, *, drip: bool = False) -> str | None:
    """What is wrong with a server that says so; one that drips goes on for ever."""
    gone = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)
            while drip and not gone.wait(0.02):
                connection.sendall(b"y")

    thread = threading.Thread(target=serve)
    thread.start()
    problem = health.check(int(server.getsockname()[1]), 0.5 if drip else 10)
    gone.set()
    thread.join()
    return problem


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", None),
        (b"HTTP/1.0 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "/health answers 503"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "not HTTP"),
        (b"SSH-2.0-x\r\n", "not HTTP"),
        (b"", "not HTTP"),
        (b"x" * 5_000_000, "its answer is larger than 4194304 bytes"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_answered(listener: socket.socket, answer: bytes, problem: str | None) -> None:
    said = answered(listener, answer)
    assert said == problem or (len(answer) > 5_000 and said in (problem, "connection reset by peer"))


def test_an_answer_without_end_is_none(listener: socket.socket) -> None:
    """Each byte comes in time, the whole never does."""
    assert answered(listener, b"HTTP/1.1 200 OK\r\nx: ", drip=True) == "no answer within 0.5 s"


def test_a_knock_asks_once_a_second_and_hears_once(listener: socket.socket) -> None:
    now = [0.0]
    poll = HealthPoll(int(listener.getsockname()[1]), clock=lambda: now[0])
    assert not poll.tick()
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        now[0] = 0.9
        assert not poll.tick()
        now[0] = 1.1
        assert not poll.tick()
        assert list(poll.readers()) == []
        assert not poll.tick()
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not poll.tick():
        now[0] = 1.2
    poll.close()
