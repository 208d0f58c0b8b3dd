"""What the kernel knows about the peer of a TCP connection. Linux's own answers, which wait for nothing."""

import fcntl
import socket
import sys
import termios
from typing import Final

TCP_INFO_BYTES: Final = 1  # of which the first is the connection's state
LEFT: Final = (7, 8)  # TCP_CLOSE and TCP_CLOSE_WAIT of the kernel's tcp_states.h


def has_left(connection: socket.socket) -> bool:
    """Whether the peer has closed its side, even where bytes before the end have not been read."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)[0] in LEFT


def unacknowledged(connection: socket.socket) -> int:
    """Bytes that the kernel holds for the peer, sent or not."""
    return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
