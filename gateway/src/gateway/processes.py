"""Several processes on one port (GATEWAY_PROCESSES): a parent that starts them, reports them as one, and ends them.
Each has a listening socket of its own, among which the kernel divides connections, and an ops port on loopback that the
parent asks. The parent keeps all sockets: whoever connects while a process is started again waits in its backlog."""

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Sequence
from contextlib import suppress

from fastapi import FastAPI, Response

from gateway.api.errors import NoWorkerAvailable
from gateway.app import Gateway, usage_writer
from gateway.config.settings import Settings
from gateway.control.framework import bare_app
from gateway.control.ops import EXPOSITION
from gateway.discovery.probe_client import ResponseError, connect
from gateway.limits.table import Table, shared_memory
from gateway.serve import address_of, end, ops_server, stop_event, wait_for_any
from gateway.telemetry import merging
from gateway.telemetry.logs import EventLog
from gateway.usage import pipe

START_AGAIN_S = 1.0  # after a process is lost, so that one that dies at once does not take the processor
ASK_S = 2.0  # a process may take to answer the parent
ASK_AGAIN_S = 0.05  # until all have begun to listen
# Exit codes of what the operator must mend: started again at once, it would only end so again.
OPERATORS = (2, 3)
MEND_S = 5.0  # the operator has to mend what keeps a process from starting while others serve; then it is tried again
Json = dict[str, object]


class Child:
    """One gateway process, as its parent holds it. data: the socket on which it takes clients' connections; usage: the
    one on which it tells what keys use; number: which of the processes it is; table: what keys have used of their
    limits, which all of them share."""

    def __init__(
        self, data: socket.socket, usage: socket.socket, log: EventLog, number: int, table: Table
    ) -> None:
        self._data = data
        self._usage = usage
        self._number = number
        self._table = table
        self._ops = socket.create_server(("127.0.0.1", 0))
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._served: asyncio.subprocess.Process | None = None  # the last that answered on its ops port
        self._ending = asyncio.Event()

    async def keep(self, siblings: Sequence["Child"]) -> int:
        """Run the process, and start it again if it is lost, until `terminate` or until it ends for what the operator
        must mend (OPERATORS). That ends the gateway at its first start, but not later, while one of `siblings` serves.
        Return the last run's exit code; 0 if `terminate` came before it was started again."""
        code = await self._run()
        while not self._ending.is_set():
            again_s = MEND_S if code in OPERATORS else START_AGAIN_S
            if code in OPERATORS and not (self._served and await any_serves(siblings)):
                break
            self._log.error("process_lost", exit_code=code, again_s=again_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), again_s)
            code = 0 if self._ending.is_set() else await self._run()
        return code

    def serves(self) -> bool:
        """Return whether the process runs and has answered since it was started."""
        return (
            self._process is not None and self._process.returncode is None and self._process is self._served
        )

    async def _run(self) -> int:
        """Run the process and return its exit code. It ends if its standard input does, and so with the parent. What it
        held of keys' limits is given back when it has ended, however it has."""
        assert self._table.fd is not None
        passed = self._data.fileno(), self._ops.fileno(), self._usage.fileno(), self._table.fd
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "process", *map(str, passed), str(self._number),
            pass_fds=passed, stdin=asyncio.subprocess.PIPE,
        )  # fmt: skip
        if self._ending.is_set():  # `terminate` came while the process was made, and found none
            self._process.terminate()
        code = await self._process.wait()
        self._table.clear(self._number)
        return code

    def terminate(self) -> None:
        """Tell the process to drain and end, and `keep` not to start it again."""
        self._ending.set()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    async def page(self, target: str) -> bytes | None:
        """Return a page of the process's ops port, or None if it does not answer with 200 within ASK_S."""
        asked = self._process
        try:
            async with asyncio.timeout(ASK_S), connect(*self._ops.getsockname()) as connection:
                found = await connection.get(target)
        except (OSError, ResponseError, TimeoutError):
            return None  # it starts, ends or is stuck
        if found.status != 200:
            return None
        self._served = asked
        return found.body


async def serve_all(
    settings: Settings, data: Sequence[socket.socket], ops_socket: socket.socket, log: EventLog
) -> int:
    """Serve with a process per socket of `data` until a signal, or until one cannot be kept (`Child.keep`); then end
    all. Return the highest exit code. Raises ConfigError. The ops port goes last, to show how they drain."""
    Gateway(settings, log)  # thrown away: raises what is wrong once, before any process starts
    reading, writing = pipe.sockets()
    table = Table(shared_memory(), settings.processes)
    children = [Child(one, writing, log, number, table) for number, one in enumerate(data)]
    stop = stop_event()
    usage = usage_writer(settings, log)
    if usage is not None:
        usage.start()
        asyncio.get_running_loop().add_reader(reading.fileno(), lambda: usage.put([*pipe.received(reading)]))
    ops = ops_server(ops_app(children))
    ops_task = asyncio.create_task(ops.serve([ops_socket]))
    kept = [asyncio.create_task(child.keep(siblings_of(child, children))) for child in children]
    ready = asyncio.create_task(announce(children, log, data=address_of(data[0]), ops=address_of(ops_socket)))
    await wait_for_any(stop, *kept, ops_task)
    for child in children:
        child.terminate()
    codes = await asyncio.gather(*kept)
    await end(ready)
    if usage is not None:
        usage.put([*pipe.received(reading)])
        usage.close()
    ops.should_exit = True
    await ops_task
    return max(map(abs, codes))  # a negative one is the signal that killed a process


def siblings_of(child: Child, children: Sequence[Child]) -> list[Child]:
    """Return all but one."""
    return [one for one in children if one is not child]


async def any_serves(children: Sequence[Child]) -> bool:
    """Return whether one of the processes serves. Each is asked, since nobody may have since it was started again."""
    await pages(children, "/workers")
    return any(child.serves() for child in children)


async def announce(children: Sequence[Child], log: EventLog, **facts: object) -> None:
    """Log that all processes listen, once all answer on their ops ports; `serve_all` runs it. facts: for that line."""
    while None in await pages(children, "/workers"):  # noqa: ASYNC110  # the event is another process'
        await asyncio.sleep(ASK_AGAIN_S)
    log.info("listening", **facts, processes=len(children))


def pages(children: Sequence[Child], target: str) -> Awaitable[list[bytes | None]]:
    """Return a page of each process, asked all at once; None for those that do not answer."""
    return asyncio.gather(*(child.page(target) for child in children))


def ops_app(children: Sequence[Child]) -> FastAPI:
    """Return the application of the parent's ops port, which merges the pages of those processes that answer."""
    app = bare_app("Octet gateway, ops")

    async def answered(target: str) -> list[bytes]:
        found = [page for page in await pages(children, target) if page is not None]
        if not found:
            raise NoWorkerAvailable("No process of the gateway answers")
        return found

    @app.get("/metrics")
    async def exposition() -> Response:
        found = [page.decode() for page in await answered("/metrics")]
        return Response(merging.metrics(found), media_type=EXPOSITION)

    @app.get("/workers")
    async def workers() -> Json:
        return merging.workers([json.loads(page) for page in await answered("/workers")])

    @app.get("/targets/{kind}")
    async def targets(kind: str) -> Response:
        return Response((await answered(f"/targets/{kind}"))[0], media_type="application/json")

    return app
