"""A question is asked and its answer taken without ever waiting for either."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

import pytest

from launcher.engine.question import METRICS_REQUEST, Question


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server in the test's hand."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


def port(server: socket.socket) -> int:
    """Where it listens."""
    return int(server.getsockname()[1])


def over(question: Question) -> Question:
    """The same question once it is over."""
    while not question.over:
        assert select.select([question], [], [], 10)[0], "it never ends"
        question.pump()
    return question


def answered(server: socket.socket, answer: bytes) -> Question:
    """A question to which the server has said so, and closed."""
    question = Question(port(server), METRICS_REQUEST)
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        sender = threading.Thread(target=connection.sendall, args=(answer,))
        sender.start()
        while sender.is_alive():
            question.pump()
        sender.join()
    return over(question)


def test_an_answer_is_whole_once_the_server_has_closed(listener: socket.socket) -> None:
    """Larger than any buffer on the way."""
    body = "x" * 3_000_000
    assert answered(listener, f"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{body}".encode()).body == body.encode()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n200", b"\0\r\n\r\n"]
)
def test_what_is_no_answer_has_no_text(listener: socket.socket, answer: bytes) -> None:
    """Nothing, half a head, another status, no HTTP."""
    assert answered(listener, answer).body is None


def test_a_server_that_does_not_answer_holds_nobody_up(listener: socket.socket) -> None:
    """Nobody even accepts the connection."""
    question = Question(port(listener), METRICS_REQUEST)
    question.pump()
    assert (question.over, question.body) == (False, None)
    question.close()


def test_a_connection_refused_is_over(listener: socket.socket) -> None:
    """Nobody listens."""
    listener.close()
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        assert over(Question(port(unheard), METRICS_REQUEST)).body is None
