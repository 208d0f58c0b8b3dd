"""Pages of a worker are read within bounds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.discovery.probe_client import MAX_BYTES, MAX_METRICS_BYTES, ResponseError, connect

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


@asynccontextmanager
async def worker(answer: bytes) -> AsyncIterator[int]:
    """A server that gives this answer, whatever is asked, and then leaves."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def page(target: str, answer: bytes) -> bytes:
    async with worker(answer) as port, connect("127.0.0.1", port) as connection:
        return (await connection.get(target)).body


def chunked(body: bytes) -> bytes:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize("frame", [lambda body: HEAD % len(body) + body, chunked])
async def test_a_page_is_what_the_worker_sends(frame: Callable[[bytes], bytes]) -> None:
    """However it is framed."""
    assert await page("/v1/models", frame(b"{}" * 500)) == b"{}" * 500


@pytest.mark.parametrize(("target", "most"), [("/v1/models", MAX_BYTES), ("/metrics", MAX_METRICS_BYTES)])
async def test_a_page_without_an_end_is_given_up(target: str, most: int) -> None:
    """One of JSON much earlier than metrics, of which a worker may have many."""
    assert len(await page(target, HEAD % most + b" " * most)) == most
    with pytest.raises(ResponseError, match=f"{target} is longer than {most} bytes"):
        await page(target, HEAD % (most * 2) + b" " * (most * 2))


@pytest.mark.parametrize("answer", [b"SSH-2.0\r\n", HEAD % 9, b"HTTP/1.1 200 OK\r\ncontent-le"])
async def test_what_is_no_page(answer: bytes) -> None:
    """Garbage, and what ends too early."""
    with pytest.raises(ResponseError):
        await page("/health", answer)
