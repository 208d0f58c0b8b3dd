"""A process's sums: given away in half a second, by a socket too, whole and once."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as some

from gateway.usage.ledger import Ledger
from gateway.usage.pipe import ToParent, received, sockets
from gateway.usage.record import Row, Sums, messages, rows_in


class Sink:
    """Takes rows, or refuses them all."""

    def __init__(self) -> None:
        self.taken: list[Row] = []
        self.refuses = False
        self.given = asyncio.Event()

    def put(self, rows: list[Row]) -> list[Row]:
        if self.refuses:
            return rows
        self.taken += rows
        self.given.set()
        return []


def test_requests_are_summed_up_until_they_are_taken() -> None:
    """By key and model; what is refused stays, and nothing is given twice."""

    async def run() -> None:
        sink = Sink()
        ledger = Ledger(sink, asyncio.get_running_loop())
        sink.refuses = True
        ledger.add("a", "m", True, 7, 4, 3)
        ledger.flush()
        ledger.add("a", "m", True, 1, 0, 1)
        ledger.add("a", "unknown", False, 0, 0, 0)
        sink.refuses = False
        await asyncio.wait_for(sink.given.wait(), 40)
        assert sink.taken == [("a", "m", 2, 0, 8, 4, 4), ("a", "unknown", 0, 1, 0, 0, 0)]
        ledger.flush()
        assert len(sink.taken) == 2

    asyncio.run(run())


names = some.text(min_size=1, max_size=64)
rows = some.lists(some.tuples(names, names, *[some.integers(0, 1 << 50)] * 5), max_size=600)


@given(rows)
def test_messages_bring_each_row_once(rows: list[Row]) -> None:
    assert [row for message, _ in messages(rows) for row in rows_in(message)] == rows


def test_a_full_socket_loses_nothing() -> None:
    """What finds no room is given back to the sender."""
    reading, writing = sockets()
    to_parent, sums, sent = ToParent(writing), Sums(), 0
    left: list[Row] = []
    while not left:
        left = to_parent.put([(f"key{number}", "m", 1, 0, 1, 1, 1) for number in range(600)])
        sent += 600 - len(left)
    for row in received(reading):
        sums.add(row)
    assert sum(row[2] for row in sums.rows()) == sent
    assert to_parent.put(left) == []
    assert sum(row[2] for row in received(reading)) == len(left)
    reading.close()
    assert to_parent.put(left) == left
    writing.close()
