"""The beginning of clients' connections under TLS: until both sides have agreed, then a `ClientConnection` goes on.

A handshake that does not end in time is aborted, as is the oldest one where there are too many. Whoever speaks HTTP
without TLS is told so."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, cast

from gateway.api.errors import InvalidRequest
from gateway.config.certificate import Certificate, reason_of
from gateway.server.connection import DRAIN_WAIT_S, WRITE_BUFFER_BYTES, ClientConnection
from gateway.server.listener import Listener

MAX_HANDSHAKES: Final = 4096  # at once, in all processes: twice a backlog; each takes up to 56 KB
TLS_RECORD: Final = 0x16  # first byte of a TLS client: the type of a handshake's record
FAREWELL_S: Final = 86_400.0  # uvloop's limit for closing; ClientConnection's deadlines come long before


class Handshakes:
    """The handshakes that have not ended, oldest first. Each process has one. failed: called with OpenSSL's reason."""

    def __init__(self, listener: Listener, certificate: Certificate, failed: Callable[[str], None]) -> None:
        self.listener = listener
        self.certificate = certificate
        self.failed = failed
        self._most = MAX_HANDSHAKES // listener.settings.processes
        self._running: dict[Handshake, None] = {}

    def begin(self) -> "Handshake":
        """Return the protocol for a connection that was just accepted."""
        return Handshake(self)

    def enter(self, handshake: "Handshake") -> None:
        """Add one that has begun; if there are too many then, abort the oldest: others end within milliseconds."""
        self._running[handshake] = None
        if len(self._running) > self._most:
            next(iter(self._running)).abort()

    def leave(self, handshake: "Handshake") -> None:
        """Remove one that has ended, well or not; several calls do no harm."""
        self._running.pop(handshake, None)


class Handshake:
    """One client's TCP connection until TLS is agreed. To the listener it is a connection like others. It has
    asyncio.Protocol's methods without inheriting it, so that mypyc can compile it as a native class."""

    def __init__(self, handshakes: Handshakes) -> None:
        self._handshakes = handshakes
        self._listener = handshakes.listener
        self._since = handshakes.listener.loop.time()
        self._agreeing: asyncio.Task[None] | None = None
        self._early = b""  # what came, decrypted, between the handshake's end and the turn of its task

    @property
    def busy(self) -> bool:
        """No request runs yet."""
        return False

    def check_deadlines(self, now: float) -> None:
        """Abort a handshake that takes too long; the listener calls this four times a second."""
        most = DRAIN_WAIT_S if self._listener.closing else self._listener.settings.head_timeout_s
        if now - self._since > most:
            self.abort()

    def close_when_idle(self) -> None:
        """Go on during the shutdown: the client has just connected, and could not know of it."""

    def abort(self) -> None:
        """Close the connection at once: it is late, or there are too many."""
        self._handshakes.leave(self)
        self._transport.abort()

    def end_at_shutdown(self) -> None:
        """Close the connection at once: the drain period has passed."""
        self.abort()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._handshakes.enter(self)
        self._listener.enter(self)

    def data_received(self, data: bytes) -> None:
        """Begin TLS with the client's first bytes, or say that they are none. Once TLS is agreed, keep what it brings
        for the connection that the task is about to make: a busy loop reads several times in one turn."""
        if self._agreeing is not None:
            self._early += data
            return
        if data[0] != TLS_RECORD:
            self._go_on(self._transport, ClientConnection(self._listener)).refuse(
                InvalidRequest("This port speaks TLS only: use https:// in the address")
            )
            return
        self._transport.pause_reading()
        self._agreeing = self._listener.loop.create_task(self._agree())
        self._listener.loop.call_soon(self._pass_on, data)  # when the task has run to its first wait

    def eof_received(self) -> None:
        """Return None, so that asyncio closes the connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def pause_writing(self) -> None:
        """Do nothing: a handshake's bytes are few."""

    def resume_writing(self) -> None:
        """Do nothing, as in `pause_writing`."""

    # the handshake

    async def _agree(self) -> None:
        """Make the handshake by the event loop's own TLS, and hand the connection on."""
        listener = self._listener
        try:
            secured = await listener.loop.start_tls(
                self._transport,
                cast(asyncio.Protocol, self),
                self._handshakes.certificate.context,
                server_side=True,
                ssl_handshake_timeout=listener.settings.head_timeout_s,
                ssl_shutdown_timeout=FAREWELL_S,
            )
            if secured is not None and not secured.is_closing():
                connection = self._go_on(secured, ClientConnection(listener, self._transport))
                if self._early:
                    connection.data_received(self._early)
        except ssl.SSLError as error:
            self._handshakes.failed(reason_of(error))
        except OSError:
            pass  # the client has left, or its time was over
        except Exception as fault:  # noqa: BLE001  # the boundary of one connection
            listener.report(fault)
            self._transport.abort()
        finally:
            self._end()

    def _pass_on(self, data: bytes) -> None:
        """Give TLS the bytes that came before it: its protocol has taken this one's place in the transport."""
        protocol = cast(asyncio.BufferedProtocol, self._transport.get_protocol())
        memoryview(protocol.get_buffer(len(data)))[: len(data)] = data
        protocol.buffer_updated(len(data))

    def _go_on(self, transport: asyncio.Transport, connection: ClientConnection) -> ClientConnection:
        """Let `connection` take this one's place, and return it."""
        transport.set_protocol(cast(asyncio.Protocol, connection))
        connection.connection_made(transport)
        self._end()  # later than the other has entered the listener, which may wait for its last connection
        return connection

    def _end(self) -> None:
        """Leave the listener and the other handshakes; several calls do no harm."""
        self._handshakes.leave(self)
        self._listener.forget(self)
