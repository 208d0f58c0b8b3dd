"""The parent of several gateway processes: what `terminate` does while a process is still being made."""

import asyncio
import signal
import socket

import pytest

from gateway.limits.table import Table, shared_memory
from gateway.processes import Child
from gateway.telemetry.logs import EventLog
from gateway.usage import pipe

WAIT_S = 60


@pytest.mark.parametrize("turns", [1, 2, 3, 5])
def test_a_process_that_is_being_made_is_told_to_end_too(turns: int) -> None:
    """After any number of the loop's turns: else nobody would tell it, and the parent would wait for it for ever."""

    async def run() -> int:
        with socket.create_server(("127.0.0.1", 0)) as data:
            reading, writing = pipe.sockets()
            child = Child(data, writing, EventLog(), 0, Table(shared_memory()))
            kept = asyncio.create_task(child.keep(()))
            for _ in range(turns):
                await asyncio.sleep(0)
            child.terminate()
            try:
                return await asyncio.wait_for(kept, WAIT_S)
            finally:
                for one in (child._ops, reading, writing):
                    one.close()

    assert asyncio.run(run()) in (0, -signal.SIGTERM)
