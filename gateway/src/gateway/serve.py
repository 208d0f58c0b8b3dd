"""Runs the data and ops ports in one event loop, and drains them at SIGTERM: /ready turns 503, a short wait lets
whoever asks it notice, the listener closes, open requests get `drain_s` to finish, what is left gets an error event.
The ops port goes last, so that the drain itself can be watched."""

import asyncio
import errno
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import cast

import uvicorn

from gateway.api.errors import ConfigError, PortInUse
from gateway.app import Gateway
from gateway.config.certificate import Certificate
from gateway.config.settings import Settings
from gateway.server.connection import ClientConnection
from gateway.server.handshake import Handshakes
from gateway.server.listener import Listener
from gateway.telemetry.logs import EventLog

BACKLOG = 2048  # connections that the kernel holds until they are accepted
MAX_UNSENT_BYTES = 128 * 1024  # bytes that the kernel takes for a slow client; by itself it takes megabytes
CERTIFICATE_S = 1.0  # between two looks at the certificate's files; a change counts after two
UNHEARD_S = 40.0  # how long a peer may acknowledge nothing, if GATEWAY_WRITE_TIMEOUT_S is not longer


class Server(uvicorn.Server):
    """A uvicorn server, for the ops port, that handles no signals: `stop_event` handles them for both ports."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Set no signal handlers: uvicorn.Server.serve enters this, and its own would replace those of `stop_event`."""
        yield


async def serve(
    gateway: Gateway,
    data_socket: socket.socket,
    ops_socket: socket.socket,
    log: EventLog,
    *,
    child: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain, with probes and deadlines still checked. child: also drain when
    standard input ends, which the parent holds."""
    stop = stop_event()
    if child:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    loop = asyncio.get_running_loop()
    listener, ops = gateway.listener(), ops_server(gateway.ops)
    async with gateway.resources():
        await gateway.discovery.run_once()
        if gateway.redis is not None:
            await gateway.redis.store.connect()
        discovery = asyncio.create_task(gateway.discovery.run())
        watch = asyncio.create_task(listener.watch())
        ops_task = asyncio.create_task(ops.serve([ops_socket]))
        redis = asyncio.create_task(gateway.keep_redis())
        certificate = asyncio.create_task(watch_certificate(gateway.certificate, log))
        connect = connector(listener, gateway.certificate, log)
        data_server = await loop.create_server(connect, sock=data_socket, backlog=BACKLOG)
        log.info(
            "process_listening" if child else "listening",
            data=address_of(data_socket),
            ops=address_of(ops_socket),
            models=gateway.fleet.catalog.names,
        )
        await wait_for_any(stop, discovery, watch, certificate, redis, ops_task)
        await drain(gateway, listener, data_server, log)
        ops.should_exit = True
        await ops_task
        await end_redis(gateway, redis)
        await end(discovery)
        await end(watch)
        await end(certificate)


async def end_redis(gateway: Gateway, task: asyncio.Task[None]) -> None:
    """End `Gateway.keep_redis`, once the last requests have told Redis what they have used."""
    if gateway.redis is None:
        await end(task)
    else:
        gateway.redis.store.end()
        await task


def connector(
    listener: Listener, certificate: Certificate | None, log: EventLog
) -> Callable[[], asyncio.Protocol]:
    """Return what makes the protocol of an accepted connection: with a certificate, one that begins with TLS."""
    # Both have the methods of asyncio.Protocol but, to be compiled, do not inherit it.
    if certificate is None:
        return cast(Callable[[], asyncio.Protocol], partial(ClientConnection, listener))
    handshakes = Handshakes(listener, certificate, lambda reason: log.info("handshake_failed", reason=reason))
    return cast(Callable[[], asyncio.Protocol], handshakes.begin)


async def watch_certificate(certificate: Certificate | None, log: EventLog) -> None:
    """Log the certificate, then read it again whenever its files change, until cancelled. `serve` runs this as a task.
    A wrong pair is logged once, and the one before stays in force. None: wait for ever, as there is no TLS."""
    if certificate is None:
        await asyncio.Event().wait()
        return
    tell_of(certificate, log)
    while True:
        await asyncio.sleep(CERTIFICATE_S)
        try:
            if certificate.has_changed() and await asyncio.to_thread(certificate.read):
                tell_of(certificate, log)
        except Exception as error:  # noqa: BLE001  # the boundary of one reload: no file may end the gateway
            if certificate.is_news(str(error)):
                log.error(
                    "certificate_refused", message=f"{error}; the certificate read before stays in force"
                )


def tell_of(certificate: Certificate, log: EventLog) -> None:
    """Log a certificate that has come into force, and whether its key is there for everybody to read."""
    log.info("certificate_read", **certificate.facts)
    if certificate.exposure:
        log.warning("key_exposed", message=certificate.exposure)


async def drain(gateway: Gateway, listener: Listener, data_server: asyncio.Server, log: EventLog) -> None:
    """Stop taking requests, give those that run `drain_s` to finish, and end the rest; the log's `cut` counts these."""
    settings = gateway.settings
    gateway.draining = True
    log.info("draining", delay_s=settings.drain_delay_s, grace_s=settings.drain_s)
    await asyncio.sleep(settings.drain_delay_s)
    data_server.close()
    listener.close_idle()
    with suppress(TimeoutError):
        async with asyncio.timeout(settings.drain_s):
            await listener.empty.wait()
    gateway.queues.clear()  # else each ended request would let a queued one be sent
    log.info("drained", cut=listener.end_all())
    await asyncio.sleep(0)  # a turn of the loop, in which the last bytes are written


async def wait_for_any(stop: asyncio.Event, *tasks: asyncio.Task[None] | asyncio.Task[int]) -> None:
    """Wait for a signal or for a task to end. If a task has raised, raise the same. All are to run for ever, but for
    `Child.keep`, which returns when the operator must mend something: then the caller ends the rest."""
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in done:
        task.result()


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a background task, and wait until it has ended. Raises what it had raised itself, if it had."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def stop_event() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set, in place of ending the process, so that it can drain."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def ops_server(app: object) -> Server:
    """Return a uvicorn server for the ops port. Requests that run when it is told to exit get a second to finish.
    log_config=None leaves logging as `log_warnings` has set it."""
    return Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]  # uvicorn's own ASGI types are narrower than the protocol
            ws="none", lifespan="off", access_log=False, log_config=None, server_header=False,
            proxy_headers=False, timeout_graceful_shutdown=1,
        )
    )  # fmt: skip


def listen_by_several(settings: Settings) -> list[socket.socket]:
    """Return one listening socket of the data port for each process. Raises as `listen` does."""
    if settings.processes == 1:
        return [listen(settings, settings.port, "GATEWAY_PORT")]
    # Raise PortInUse if anybody has the port: the sockets below would share it with another gateway, silently.
    listen(settings, settings.port, "GATEWAY_PORT").close()
    first = listen(settings, settings.port, "GATEWAY_PORT", shared=True)
    port = first.getsockname()[1]
    others = [listen(settings, port, "GATEWAY_PORT", shared=True) for _ in range(settings.processes - 1)]
    return [first, *others]


def listen(settings: Settings, port: int, variable: str, *, shared: bool = False) -> socket.socket:
    """Return a listening socket, for data or ops. variable: the port's setting, for errors; shared: the port has other
    sockets beside it. Raises PortInUse or ConfigError with the port and what to change."""
    try:
        family = socket.AF_INET6 if ":" in settings.listen_address else socket.AF_INET
        address = settings.listen_address, port
        listening = socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=shared)
        notice_the_dead(listening, max(UNHEARD_S, settings.write_timeout_s))
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
        return listening
    except OSError as error:
        problem = f"cannot listen on {settings.listen_address}:{port} ({error.strerror})"
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"{problem}: stop what uses it or set {variable}") from error
        raise ConfigError(f"{problem}: set GATEWAY_LISTEN or {variable}") from error


def notice_the_dead(listening: socket.socket, unheard_s: float) -> None:
    """Set TCP keepalive on the listening socket; its connections inherit it, so a vanished peer is noticed: after 20 s
    of silence it is asked every 10 s, and `unheard_s` without an acknowledgement end its connection."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(unheard_s * 1000))


def raise_file_limit() -> None:
    """Raise the limit on open files to the most this process may have: every stream needs two connections. Processes
    that this one starts have the same limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def address_of(listening: socket.socket) -> str:
    """Return where a socket listens, as `host:port` for the log: with port 0 the kernel has chosen one."""
    host, port = listening.getsockname()[:2]
    return f"{host}:{port}"


class ToLog(logging.Handler):
    """A logging handler that writes libraries' warnings as events, since standard error may have no reader."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as the event `library`; the logging module calls this."""
        level = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        level("library", logger=record.name, message=self.format(record))


def log_warnings(log: EventLog) -> None:
    """Send warnings of uvicorn, asyncio and other libraries to the log. Called once, at the start of the process."""
    logging.basicConfig(level=logging.WARNING, handlers=[ToLog(log)])
