"""What is sent in one turn of the loop leaves together, in its order."""

import asyncio

from gateway.http.write_coalescer import MAX_WAITING_BYTES, WriteCoalescer


class Line:
    """A transport that notes what is written."""

    def __init__(self, noted: list[tuple[str, bytes]], name: str) -> None:
        self._noted = noted
        self._name = name
        self.closing = False

    def write(self, data: bytes) -> None:
        self._noted.append((self._name, data))

    def is_closing(self) -> bool:
        return self.closing


class EndedLine(Line):
    def write(self, data: bytes) -> None:
        raise RuntimeError("Cannot call write() after write_eof()")

    def abort(self) -> None:
        self.closing = True


async def test_all_of_a_turn_leaves_together() -> None:
    """Nothing is written before the turn's end; neighbours for one connection are one write."""
    noted: list[tuple[str, bytes]] = []
    coalescer, a, b = WriteCoalescer(asyncio.get_running_loop()), Line(noted, "a"), Line(noted, "b")
    for line, data in ((a, b"1"), (a, b"2"), (b, b"3"), (a, b"4")):
        coalescer.send(line, data)  # type: ignore[arg-type]
    assert noted == []
    await asyncio.sleep(0)
    assert noted == [("a", b"12"), ("b", b"3"), ("a", b"4")]


async def test_large_pieces_are_not_copied() -> None:
    """They leave as they are, one behind the other."""
    noted: list[tuple[str, bytes]] = []
    coalescer, a = WriteCoalescer(asyncio.get_running_loop()), Line(noted, "a")
    large = b"x" * (MAX_WAITING_BYTES + 1)
    for data in (b"head", large, b"tail"):
        coalescer.send(a, data)  # type: ignore[arg-type]
    coalescer.flush()
    assert noted == [("a", b"head"), ("a", large), ("a", b"tail")]


async def test_no_more_waits_than_is_bounded() -> None:
    """One turn may bring thousands of requests: what waits unwritten is seen by no limit of a connection."""
    noted: list[tuple[str, bytes]] = []
    coalescer, a = WriteCoalescer(asyncio.get_running_loop()), Line(noted, "a")
    for _ in range(10):
        coalescer.send(a, b"x" * (MAX_WAITING_BYTES // 4))  # type: ignore[arg-type]
    assert len(noted) == 2
    await asyncio.sleep(0)
    assert sum(len(data) for _, data in noted) == 10 * (MAX_WAITING_BYTES // 4)


async def test_one_that_cannot_be_written_to_costs_no_other_its_bytes() -> None:
    """As a connection whose end has been written."""
    noted: list[tuple[str, bytes]] = []
    coalescer, ended, b = WriteCoalescer(asyncio.get_running_loop()), EndedLine(noted, "a"), Line(noted, "b")
    coalescer.send(ended, b"1")  # type: ignore[arg-type]
    coalescer.send(b, b"2")  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert (noted, ended.closing) == ([("b", b"2")], True)


async def test_what_has_been_closed_gets_nothing() -> None:
    """A client that has gone within the turn."""
    noted: list[tuple[str, bytes]] = []
    coalescer, a = WriteCoalescer(asyncio.get_running_loop()), Line(noted, "a")
    coalescer.send(a, b"1")  # type: ignore[arg-type]
    a.closing = True
    await asyncio.sleep(0)
    assert noted == []
