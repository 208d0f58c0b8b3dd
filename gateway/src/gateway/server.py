"""Runs the data and ops ports in one event loop, and drains them at SIGTERM.

Drain: /ready turns 503, a short wait lets whoever asks it notice, the listener closes, open requests get `drain_s` to
finish, what is left gets an error event. The ops port goes last, so that the drain itself can be watched.
"""

import asyncio
import errno
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn

from gateway.app import Gateway
from gateway.downstream import ClientConnection
from gateway.errors import ConfigError, PortInUse
from gateway.logs import EventLog
from gateway.proxy import ROUTES
from gateway.settings import Settings

BACKLOG = 2048
CLIENT_KEEP_ALIVE_S = 75


class Server(uvicorn.Server):
    """A uvicorn server whose signals are handled by `serve` below, since two of them share the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    gateway: Gateway, data_socket: socket.socket, ops_socket: socket.socket, log: EventLog
) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    stop = stop_event()
    connection = partial(ClientConnection, ROUTES, gateway.proxy)
    data, ops = make_server(gateway.data, gateway.settings.drain_s, connection), make_server(gateway.ops, 1)
    async with gateway.resources():
        keeper = asyncio.create_task(gateway.keeper.run())
        ops_task = asyncio.create_task(ops.serve([ops_socket]))
        data_task = asyncio.create_task(data.serve([data_socket]))
        log.info(
            "listening",
            data=address_of(data_socket),
            ops=address_of(ops_socket),
            models=gateway.fleet.catalog.names,
        )
        await wait_for_any(stop, keeper, ops_task, data_task)
        await drain(gateway, data, data_task, log)
        ops.should_exit = True
        await ops_task
        await end(keeper)


async def drain(gateway: Gateway, data: Server, data_task: asyncio.Task[None], log: EventLog) -> None:
    gateway.draining = True
    log.info("draining", delay_s=gateway.settings.drain_delay_s, grace_s=gateway.settings.drain_s)
    await asyncio.sleep(gateway.settings.drain_delay_s)
    data.should_exit = True
    await data_task
    log.info("drained")


async def wait_for_any(stop: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    """Waits for a signal, or for a task to end, which none should: its error is raised."""
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in done:
        task.result()


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def make_server(app: object, grace_s: int, http: Callable[..., Any] | str = "httptools") -> Server:
    """A uvicorn server for `app` that leaves at most `grace_s` seconds to open requests when it ends.

    http: what makes the protocol of a client's connection.
    """
    return Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]  # uvicorn's own ASGI types are narrower than the protocol
            http=http,  # type: ignore[arg-type]  # uvicorn takes any callable, and declares classes alone
            ws="none", lifespan="off", access_log=False, log_config=None, server_header=False,
            proxy_headers=False, timeout_keep_alive=CLIENT_KEEP_ALIVE_S, timeout_graceful_shutdown=grace_s,
        )
    )  # fmt: skip


def listen(settings: Settings, port: int, variable: str) -> socket.socket:
    """A listening socket. Raises PortInUse or ConfigError naming the port and what to change."""
    try:
        family = socket.AF_INET6 if ":" in settings.listen_address else socket.AF_INET
        return socket.create_server((settings.listen_address, port), family=family, backlog=BACKLOG)
    except OSError as error:
        problem = f"cannot listen on {settings.listen_address}:{port} ({error.strerror})"
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"{problem}: stop what uses it or set {variable}") from error
        raise ConfigError(f"{problem}: set GATEWAY_LISTEN or {variable}") from error


def raise_file_limit() -> None:
    """Takes as many open files as this process may have: every stream needs two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{host}:{port}"


def quiet_logs() -> None:
    """Sends uvicorn's warnings to standard error, but for the one that our deliberate aborts would cause each time."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "without completing response" not in record.getMessage()
    )
