"""What the kernel says of a connection."""

from __future__ import annotations

import socket

from gateway.http.sockets import has_left, received, unacknowledged


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return server.accept()[0], client


def test_bytes_that_nobody_has_read_are_counted() -> None:
    """By both sides: as received by one, and as taken by the other."""
    ours, theirs = pair()
    with ours, theirs:
        assert received(ours) == 0
        theirs.sendall(b"x" * 1000)
        ours.recv(10)
        assert received(ours) == 1000
        assert unacknowledged(theirs) == 0
        theirs.sendall(b"x" * 500)
        ours.recv(2000)
        assert received(ours) == 1500


def test_a_peer_that_has_left_is_noticed() -> None:
    """Even with its last bytes unread."""
    ours, theirs = pair()
    with ours:
        assert not has_left(ours)
        theirs.sendall(b"x")
        theirs.close()
        ours.recv(1)
        assert has_left(ours)
