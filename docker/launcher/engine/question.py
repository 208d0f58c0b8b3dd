"""The launcher's HTTP client: one request to vLLM over its own connection to 127.0.0.1, without ever blocking.
`health`, `watch`, `warming` and `signs_of_life` use it in the supervisor's loop. Opens sockets, starts no threads."""

import os
import re
import socket
import time
from collections.abc import Callable

_GET = b"GET %s HTTP/1.0\r\nHost: localhost\r\nAccept: text/plain\r\n%s\r\n"
METRICS_REQUEST = _GET % (b"/metrics", b"")
_ONE_TOKEN = b'{"prompt": "1", "max_tokens": 1, "temperature": 0}'
# for a completion of one token; a model that generates no text answers 4xx, which shows no less that vLLM works
TOKEN_REQUEST = (
    b"POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_ONE_TOKEN), _ONE_TOKEN)
)
KEY_HEADER = b"x-octet-key"  # lets the launcher's own requests in during warm-up (`admission`)
_READ_BYTES = 65536  # in one `recv`
_MAX_ANSWER_BYTES = 4 * 1024 * 1024  # head and body; vLLM's /metrics has about 100 KB
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
OK = 200


def health_request(key: bytes | None = None) -> bytes:
    """Return the bytes of `GET /health`, with the warm-up key in a header if one is given."""
    return _GET % (b"/health", b"%s: %s\r\n" % (KEY_HEADER, key) if key else b"")


class Question:
    """A question: one HTTP request to vLLM and its answer. The owner calls `pump` whenever `fileno` is readable, until
    `over`. `over` is True once the answer is complete or the request has failed; then `problem` is None or says why it
    failed. `too_large`: it failed because the answer was larger than 4 MiB."""

    def __init__(
        self,
        port: int,
        request: bytes,
        timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect and start to send the bytes `request`, without waiting. The answer is complete when vLLM closes the
        connection (HTTP/1.0). The request fails after `timeout_s` (None: never)."""
        self._unsent = request
        self._received = bytearray()
        self._clock, self._timeout_s, self._began = clock, timeout_s, clock()
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
        self._socket.connect_ex(("127.0.0.1", port))  # if it is refused, `pump` finds out
        self.pump()

    def fileno(self) -> int:
        """Return the socket's descriptor, for `poll`; -1 if no socket could be made, or it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def left_s(self) -> float | None:
        """Seconds until the request times out, for the owner's wait; below 0 until `pump` fails it. None: never."""
        return None if self._timeout_s is None else self._began + self._timeout_s - self._clock()

    def pump(self) -> None:
        """Send and receive what is possible without blocking, then fail the request if its time is up."""
        if self.over or self._socket is None:
            return
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            while not self.over:
                self._keep(self._socket.recv(_READ_BYTES))
        except BlockingIOError:
            if self.left_s is not None and self.left_s <= 0:
                self.fail(f"no answer within {self._timeout_s:.3g} s")
        except OSError as error:  # refused, or broken off
            self.fail(_reason(error))

    @property
    def status(self) -> int | None:
        """The status of a complete answer; None before that, after a failure, and for bytes that are not HTTP."""
        found = _STATUS.match(self._received) if self.over and not self.problem else None
        return int(found[1]) if found else None

    @property
    def body(self) -> bytes | None:
        """The body if the answer is complete and its status 200, else None."""
        return self.content if self.status == OK and b"\r\n\r\n" in self._received else None

    @property
    def content(self) -> bytes:
        """The bytes received after the head so far, whatever the status: unlike `body`, also an error's text."""
        return bytes(self._received).partition(b"\r\n\r\n")[2]

    def close(self) -> None:
        """Close the connection and set `over`: at the answer's end, or as the owner gives up; vLLM then aborts it."""
        self.over = True
        if self._socket is not None:
            self._socket.close()

    def fail(self, problem: str) -> None:
        """Close the connection, drop what was received, set `problem`. `Warming` calls it too, when its time is up."""
        self.problem = problem
        self._received.clear()
        self.close()

    def _keep(self, chunk: bytes) -> None:
        """Keep received bytes; an empty chunk (vLLM closed the connection) is the end, too many bytes are a failure."""
        self._received += chunk
        if len(self._received) > _MAX_ANSWER_BYTES:
            self.too_large = True
            self.fail(f"its answer is larger than {_MAX_ANSWER_BYTES} bytes")
        elif not chunk:
            self.close()


def _reason(error: OSError) -> str:
    """Return a socket's error as `problem` says it: in words without the number, or at least the error's type."""
    return os.strerror(error.errno).lower() if error.errno else type(error).__name__.lower()
