"""A small HTTP client for probes: a few pages of one worker over one connection, every two seconds. A general client
(httpx) cost ten times the CPU: with 64 workers a fifth of a core, taken from the streams."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httptools

READ_BYTES = 256 * 1024  # of one read
MAX_BYTES = 256 * 1024  # of a page of JSON, which is parsed in one turn of the event loop
MAX_METRICS_BYTES = 8 * 1024 * 1024  # of a page of metrics, which has about 100 KB for each engine
METRICS = "/metrics"


class ResponseError(Exception):
    """A page could not be fetched; the message says why, in words for a log line."""


@dataclass(slots=True)
class Response:
    """A page as far as it has come; httptools' parser fills it in through the methods `on_...`."""

    status: int = 0
    content: bytearray = field(default_factory=bytearray)
    is_complete: bool = False

    @property
    def body(self) -> bytes:
        return bytes(self.content)

    def on_body(self, body: bytes) -> None:
        self.content += body

    def on_message_complete(self) -> None:
        self.is_complete = True


class ProbeConnection:
    """One open connection to a worker, its launcher, a weights job or, in `processes.py`, another gateway process."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer

    async def get(self, target: str) -> Response:
        """Fetch one page, of any status; has no deadline. Raises ResponseError, or OSError if the connection fails."""
        self._writer.write(f"GET {target} HTTP/1.1\r\nhost: {self._host}\r\naccept: */*\r\n\r\n".encode())
        page, longest = Response(), MAX_METRICS_BYTES if target == METRICS else MAX_BYTES
        parser = httptools.HttpResponseParser(page)
        while not page.is_complete:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise ResponseError(f"the connection ended before {target} was complete")
            feed(parser, data, target)
            if len(page.content) > longest:
                raise ResponseError(f"{target} is longer than {longest} bytes")
        page.status = parser.get_status_code()
        return page


def feed(parser: httptools.HttpResponseParser, data: bytes, target: str) -> None:
    """Pass received bytes to the parser, which fills in the page. Raises ResponseError for other than HTTP/1.1."""
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        raise ResponseError(f"{target} is not HTTP/1.1: {error}") from error


@asynccontextmanager
async def connect(host: str, port: int) -> AsyncIterator[ProbeConnection]:
    """Open a connection and close it at the end of the block. Raises OSError. The caller sets a deadline."""
    reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES)
    try:
        yield ProbeConnection(f"{host}:{port}", reader, writer)
    finally:
        writer.transport.abort()  # at once: waiting for the other side to close might take for ever
