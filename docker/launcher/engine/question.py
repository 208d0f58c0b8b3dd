"""One question to vLLM that nobody waits for: it is asked, and what has come is taken now and then."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable

_GET = b"GET %s HTTP/1.0\r\nHost: localhost\r\nAccept: text/plain\r\n%s\r\n"
METRICS = _GET % (b"/metrics", b"")
"""How are you?"""
_ONE_TOKEN = b'{"prompt": "1", "max_tokens": 1, "temperature": 0}'
TOKEN = (
    b"POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_ONE_TOKEN), _ONE_TOKEN)
)
"""A token, please, of whichever model is served; one that makes no text refuses, which is an answer too."""
HEADER = b"x-octet-key"
_READ_BYTES = 65536
_LARGEST_ANSWER_BYTES = 4 * 1024 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
OK = 200


def health(key: bytes | None = None) -> bytes:
    """Do you serve? With a key, from before others are let in (`admission`)."""
    return _GET % (b"/health", b"%s: %s\r\n" % (HEADER, key) if key else b"")


class Question:
    """An HTTP request on its way to 127.0.0.1; `over` once it is answered or cannot be any more."""

    def __init__(
        self,
        port: int,
        words: bytes,
        patience_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask; the answer must end with its connection, as HTTP/1.0's do, and within the patience, if there is one."""
        self._unsent = words
        self._received = bytearray()
        self._clock, self._patience_s, self._began = clock, patience_s, clock()
        self.over = False
        self.problem: str | None = None
        self.too_large = False
        try:
            self._socket: socket.socket | None = socket.socket()
        except OSError as error:  # no descriptor is left
            self._socket = None
            self._fail(_said(error))
            return
        self._socket.setblocking(False)
        self._socket.connect_ex(("127.0.0.1", port))
        self.pump()

    def fileno(self) -> int:
        """The descriptor to wait on until it is over."""
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def left_s(self) -> float | None:
        """Seconds of patience left; None where there is no end to it."""
        return None if self._patience_s is None else self._began + self._patience_s - self._clock()

    def pump(self) -> None:
        """Send and take what goes without waiting."""
        if self.over or self._socket is None:
            return
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            while not self.over:
                self._take(self._socket.recv(_READ_BYTES))
        except BlockingIOError:
            if self.left_s is not None and self.left_s <= 0:
                self._fail(f"no answer within {self._patience_s:.3g} s")
        except OSError as error:  # refused, or broken off
            self._fail(_said(error))

    @property
    def status(self) -> int | None:
        """The status of an answer that is over; None if there is none."""
        found = _STATUS.match(self._received) if self.over and not self.problem else None
        return int(found[1]) if found else None

    @property
    def body(self) -> bytes | None:
        """The whole answer's body; None if there is none, or it is no 200."""
        return self.content if self.status == OK and b"\r\n\r\n" in self._received else None

    @property
    def content(self) -> bytes:
        """What has come behind the head, whatever the status."""
        return bytes(self._received).partition(b"\r\n\r\n")[2]

    def give_up(self, problem: str) -> None:
        """Wait no longer; `problem` says why there is no answer."""
        self._fail(problem)

    def close(self) -> None:
        """Ask no further."""
        self.over = True
        if self._socket is not None:
            self._socket.close()

    def _take(self, chunk: bytes) -> None:
        self._received += chunk
        if len(self._received) > _LARGEST_ANSWER_BYTES:
            self.too_large = True
            self._fail(f"its answer is larger than {_LARGEST_ANSWER_BYTES} bytes")
        elif not chunk:
            self.close()

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self._received.clear()
        self.close()


def _said(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else type(error).__name__.lower()
