"""Ask the Linux kernel about the peer of a TCP connection. `ClientConnection` does at its deadlines; nothing blocks."""

import fcntl
import socket
import struct
import sys
import termios
from typing import Final

TCP_INFO_BYTES: Final = 1  # read of `struct tcp_info`: its first byte is the connection's state
BYTES_RECEIVED: Final = struct.Struct("=128xQ")  # `tcpi_bytes_received` in `struct tcp_info`
LEFT: Final = (7, 8)  # states TCP_CLOSE and TCP_CLOSE_WAIT in the kernel's tcp_states.h


def has_left(connection: socket.socket) -> bool:
    """Whether the peer has closed its side, even with bytes unread: asyncio cannot tell while reading is paused."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)[0] in LEFT


def received(connection: socket.socket) -> int:
    """Return how many bytes have arrived on this connection so far, even those that nobody has read."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_RECEIVED.size)
    return int(BYTES_RECEIVED.unpack(info)[0])


def unacknowledged(connection: socket.socket) -> int:
    """Return how many written bytes, sent or not, the peer has not acknowledged. It falls while the peer reads."""
    return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
