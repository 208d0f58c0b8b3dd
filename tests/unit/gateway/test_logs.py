"""The log: one JSON object a line; requests together, everything else at once and in order."""

import asyncio
import io
import json

from gateway.logs import FLUSH_S, EventLog


def events(stream: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in stream.getvalue().splitlines()]


def test_an_event_is_written_at_once() -> None:
    """Level, logger and facts are in the line."""
    stream = io.StringIO()
    EventLog(stream).warning("worker_down", slug="a", reason="x")
    line = json.loads(stream.getvalue())
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "warning", "logger": "gateway", "event": "worker_down", "slug": "a", "reason": "x",
    }  # fmt: skip


async def test_requests_are_written_together_and_soon() -> None:
    """They wait for each other, at most the time that is promised."""
    stream, loop = io.StringIO(), asyncio.get_running_loop()
    log = EventLog(stream)
    log.request(loop, status=200)
    log.request(loop, status=404)
    assert stream.getvalue() == ""
    await asyncio.sleep(FLUSH_S * 5)
    assert events(stream) == ["request", "request"]


async def test_another_event_comes_behind_the_requests_before_it() -> None:
    """Order is kept."""
    stream = io.StringIO()
    log = EventLog(stream)
    log.request(asyncio.get_running_loop(), status=200)
    log.error("worker_down")
    assert events(stream) == ["request", "worker_down"]
