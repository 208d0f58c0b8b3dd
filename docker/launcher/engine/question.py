"""One HTTP request to vLLM that never blocks: the caller pumps it until it is over."""

import os
import re
import socket
import time
from collections.abc import Callable

_GET = b"GET %s HTTP/1.0\r\nHost: localhost\r\nAccept: text/plain\r\n%s\r\n"
METRICS = _GET % (b"/metrics", b"")
_ONE_TOKEN = b'{"prompt": "1", "max_tokens": 1, "temperature": 0}'
TOKEN = (
    b"POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_ONE_TOKEN), _ONE_TOKEN)
)
"""Asks for one token. A model that generates no text refuses, and that counts as an answer too."""
HEADER = b"x-octet-key"
"""Carries the key of a request that may pass before others are let in (`admission`)."""
_READ_BYTES = 65536
_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
OK = 200


def health(key: bytes | None = None) -> bytes:
    """GET /health, with the key where one is needed."""
    return _GET % (b"/health", b"%s: %s\r\n" % (HEADER, key) if key else b"")


class Question:
    """A request to 127.0.0.1. `over` once it is answered or has failed; `problem` says why it failed."""

    def __init__(
        self,
        port: int,
        words: bytes,
        patience_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Send it. The answer ends with its connection, as in HTTP/1.0, and is due within `patience_s`, if given."""
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
            self.fail(_reason(error))
            return
        self._socket.setblocking(False)
        self._socket.connect_ex(("127.0.0.1", port))
        self.pump()

    def fileno(self) -> int:
        """The descriptor to wait on until it is over."""
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def left_s(self) -> float | None:
        """Seconds until it times out; None if it never does."""
        return None if self._patience_s is None else self._began + self._patience_s - self._clock()

    def pump(self) -> None:
        """Send and receive as much as is possible without blocking."""
        if self.over or self._socket is None:
            return
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            while not self.over:
                self._take(self._socket.recv(_READ_BYTES))
        except BlockingIOError:
            if self.left_s is not None and self.left_s <= 0:
                self.fail(f"no answer within {self._patience_s:.3g} s")
        except OSError as error:  # refused, or broken off
            self.fail(_reason(error))

    @property
    def status(self) -> int | None:
        """The status of a complete answer; None if there is none."""
        found = _STATUS.match(self._received) if self.over and not self.problem else None
        return int(found[1]) if found else None

    @property
    def body(self) -> bytes | None:
        """The body of a complete answer with status 200, else None."""
        return self.content if self.status == OK and b"\r\n\r\n" in self._received else None

    @property
    def content(self) -> bytes:
        """What has arrived after the head, whatever the status."""
        return bytes(self._received).partition(b"\r\n\r\n")[2]

    def close(self) -> None:
        """Close the connection; the request is over."""
        self.over = True
        if self._socket is not None:
            self._socket.close()

    def fail(self, problem: str) -> None:
        """End it without an answer; `problem` says why."""
        self.problem = problem
        self._received.clear()
        self.close()

    def _take(self, chunk: bytes) -> None:
        self._received += chunk
        if len(self._received) > _MAX_ANSWER_BYTES:
            self.too_large = True
            self.fail(f"its answer is larger than {_MAX_ANSWER_BYTES} bytes")
        elif not chunk:
            self.close()


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else type(error).__name__.lower()
