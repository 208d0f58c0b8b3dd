"""One question to vLLM that nobody waits for: it is asked, and what has come is taken now and then."""

from __future__ import annotations

import socket

METRICS = b"GET /metrics HTTP/1.0\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n"
"""How are you?"""
_ONE_TOKEN = b'{"prompt": "1", "max_tokens": 1, "temperature": 0}'
TOKEN = (
    b"POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_ONE_TOKEN), _ONE_TOKEN)
)
"""A token, please, of whichever model is served; one that makes no text refuses, which is an answer too."""
_READ_BYTES = 65536
_LONGEST_ANSWER_BYTES = 16 * 1024 * 1024
_OK = b"200"


class Question:
    """An HTTP request on its way to 127.0.0.1; `over` once it is answered or cannot be any more."""

    def __init__(self, port: int, words: bytes) -> None:
        """Ask; the answer must end with its connection, as HTTP/1.0's do."""
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.connect_ex(("127.0.0.1", port))
        self._unsent = words
        self._received = bytearray()
        self.over = False
        self.pump()

    def fileno(self) -> int:
        """The descriptor to wait on until it is over."""
        return self._socket.fileno()

    def pump(self) -> None:
        """Send and take what goes without waiting."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            while not self.over:
                self._take(self._socket.recv(_READ_BYTES))
        except BlockingIOError:
            pass
        except OSError:  # refused, or broken off
            self._received.clear()
            self.close()

    @property
    def body(self) -> bytes | None:
        """The whole answer's body; None if there is none, or it is no 200."""
        if not self.over:
            return None
        head, end, body = bytes(self._received).partition(b"\r\n\r\n")
        return body if end and head.split()[1:2] == [_OK] else None

    def close(self) -> None:
        """Ask no further."""
        self.over = True
        self._socket.close()

    def _take(self, chunk: bytes) -> None:
        self._received += chunk
        if not chunk or len(self._received) > _LONGEST_ANSWER_BYTES:
            self.close()
