"""The log: one JSON object a line; requests together, everything else at once and in order."""

import asyncio
import json

from gateway.telemetry.logs import FLUSH_S, EventLog, dropped_line


class Lines:
    """Where lines go in these tests."""

    dropped = 7

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.is_closed = False

    def put(self, lines: list[bytes]) -> None:
        self.lines += lines

    def close(self) -> None:
        self.is_closed = True

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.lines]


def test_an_event_is_handed_over_at_once() -> None:
    """Level, logger and facts are in the line."""
    out = Lines()
    EventLog(out).warning("worker_down", slug="a", reason="x")
    line = json.loads(out.lines[0])
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "warning", "logger": "gateway", "event": "worker_down", "slug": "a", "reason": "x",
    }  # fmt: skip


async def test_requests_are_handed_over_together_and_soon() -> None:
    """They wait for each other, at most the time that is promised."""
    out, loop = Lines(), asyncio.get_running_loop()
    log = EventLog(out)
    log.request(loop, status=200)
    log.request(loop, status=404)
    assert out.lines == []
    await asyncio.sleep(FLUSH_S * 5)
    assert out.events == ["request", "request"]


async def test_another_event_comes_behind_the_requests_before_it() -> None:
    """Order is kept."""
    out = Lines()
    log = EventLog(out)
    log.request(asyncio.get_running_loop(), status=200)
    log.error("worker_down")
    assert out.events == ["request", "worker_down"]


async def test_what_waits_at_the_end_is_handed_over() -> None:
    """The last requests are in the log."""
    out = Lines()
    log = EventLog(out)
    log.request(asyncio.get_running_loop(), status=200)
    log.close()
    assert (out.events, out.is_closed) == (["request"], True)


def test_dropped_lines_are_told_like_any_event() -> None:
    """By a line of the same shape; the sum of them is the log's to say."""
    line = json.loads(dropped_line(3))
    assert (line["level"], line["logger"], line["event"], line["lines"]) == (
        "warning", "gateway", "log_lines_dropped", 3,
    )  # fmt: skip
    assert EventLog(Lines()).dropped == 7
