"""A client's connection: the requests on it, one after another, and how long they may take to come.

Bytes go to the head's reader or to the body's framing, as the connection's phase says (http/states.py). Behind a
request whose answer is due nothing is taken apart: what comes is kept, and no more is read.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from gateway.api.errors import GatewayError, GatewayFault, InvalidRequest, RequestTimeout
from gateway.api.routes import Dialect
from gateway.body.budget import no_room, too_large
from gateway.http.framing import BadFraming, Chunked, Framing
from gateway.http.sockets import has_left, unacknowledged
from gateway.http.states import PHASES, Phase, changed
from gateway.server import request_head
from gateway.server.listener import Listener
from gateway.server.request import ClientRequest, head_of

WRITE_BUFFER_BYTES: Final = 4 * 1024  # of an answer, beyond what the kernel holds
MIN_TAKEN_BYTES: Final = 4 * 1024  # bytes a client must take of an answer in write_timeout_s
TURN_BYTES: Final = 16 * 1024  # of chunks that one turn of the loop takes apart: each may be of a few bytes
MIN_BODY_RATE: Final = 64 * 1024  # bytes a second that a body must bring once its time is over
MAX_DROPPED_BODIES: Final = 2  # of the largest size, read behind the last request for its answer to arrive
LINGER_S: Final = 2.0  # how long nothing of it may come once the answer is taken
MAX_LINGER_S: Final = 30.0  # how long it is read at most
FIRST_S: Final = 1.0  # for a new connection's first request, or for a body to go on, when the gateway ends
QUIET_S: Final = 10.0  # how long nothing may come of a body while others find no room beside it

NEW: Final = Phase.NEW
IDLE: Final = Phase.IDLE
HEAD: Final = Phase.HEAD
BODY: Final = Phase.BODY
SERVING: Final = Phase.SERVING
HOLDING: Final = Phase.HOLDING
LAST: Final = Phase.LAST
LINGERING: Final = Phase.LINGERING
CLOSED: Final = Phase.CLOSED


class ClientConnection:
    """One client's connection: an asyncio.Protocol in all but name, which would keep it from being compiled whole."""

    def __init__(self, listener: Listener) -> None:
        settings = listener.settings
        self._listener = listener
        self._loop = listener.loop
        self._phase: Phase = NEW
        self._heads = request_head.HeadReader(settings.max_head_bytes, settings.max_headers)
        self._data = b""  # what has been read
        self._at = 0  # how far it is taken apart
        self._has_turn = False  # for the rest of it to be taken apart
        self._request: ClientRequest | None = None  # whose body comes, or whose answer is due
        self._framing: Framing | None = None  # of its body
        self._dropped = 0  # bytes behind the last request
        self._dropped_at = 0.0  # when the last of them came
        self._since = listener.loop.time()  # when the head, the body or the silence began
        self._stuck: tuple[int, float] | None = None  # bytes the client has not taken, and since when
        # bytes of a body, since when there are no more, and how many others had found no room by then
        self._quiet: tuple[int, float, int] | None = None

    @property
    def busy(self) -> bool:
        return self._request is not None

    def look(self, now: float) -> None:
        """Ends what takes too long."""
        self._safely(lambda: self._look(now))

    def close_when_idle(self) -> None:
        """Who has just connected, or sends a head, is no idle client: it could not know that this is the end."""
        if self._request is not None:
            self._request.keep_alive = False
            self._quiet = None
        elif self._phase is IDLE:
            self._close()

    def abort(self) -> None:
        self.transport.abort()

    def shut(self) -> None:
        """Ends the request that runs, and the connection."""
        self._safely(self._shut)
        self._close()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class, which inherits nothing
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._listener.enter(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._receive(data)
        except Exception as fault:  # noqa: BLE001  # the boundary of one connection
            self._give_up(fault)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.forget(self)
        self._become(CLOSED)
        request, self._request, self._framing, self._data = self._request, None, None, b""
        try:
            if request is not None:
                request.leave()
        except Exception as fault:  # noqa: BLE001  # the boundary of one connection
            self._listener.report(fault)

    def eof_received(self) -> None:
        """The client has left, also if it closes its sending side alone: the connection ends."""

    def pause_writing(self) -> None:
        self._safely(self._pause_writing)

    def resume_writing(self) -> None:
        self._safely(self._resume_writing)

    # a fault of the gateway's own

    def _safely(self, step: Callable[[], None]) -> None:
        """Ends this connection's request, and no other, at a fault of the gateway's own."""
        try:
            step()
        except Exception as fault:  # noqa: BLE001  # the boundary of one connection
            self._give_up(fault)

    def _give_up(self, fault: Exception) -> None:
        self._listener.report(fault)
        try:
            self._tell_fault()
        except Exception as another:  # noqa: BLE001  # the boundary of one connection
            self._listener.report(another)
            self.transport.abort()

    def _tell_fault(self) -> None:
        """As a status, if the answer has not begun."""
        request = self._request
        if request is not None and request.handler is not None:
            self._take_no_more()
            request.keep_alive = False
            request.handler.fail(GatewayFault())
        elif request is None and self._phase is not LINGERING:
            self._refuse(GatewayFault())
        else:
            self.transport.abort()

    # what comes

    def _receive(self, data: bytes) -> None:
        phase = self._phase
        if phase is LAST or phase is LINGERING:
            self._drop(len(data))
        elif phase is SERVING or phase is HOLDING or (self._stuck is not None and phase is not BODY):
            self._data += data
            self._hold()
        else:
            self._data = data
            self._read()

    def _read(self) -> None:
        """As far as the end of one request."""
        if self._phase is not BODY:
            self._read_head()
        if self._phase is BODY and self._at < len(self._data):
            self._read_body()
        if self._at == len(self._data):
            self._data, self._at = b"", 0

    def _read_head(self) -> None:
        heads = self._heads
        try:
            head = heads.feed(self._data, self._at)
        except GatewayError as error:
            self._refuse(error)
            return
        self._at = heads.end
        if head is not None:
            self._take_up(head)
        elif (self._phase is HEAD) is not heads.begun:
            self._since = self._loop.time()
            self._become(HEAD if heads.begun else IDLE)

    def _read_body(self) -> None:
        """What has come of it; of many chunks the beginning, and the rest in later turns of the loop."""
        request, framing = self._request, self._framing
        assert request is not None
        assert framing is not None
        stop = self._at + TURN_BYTES if isinstance(framing, Chunked) else len(self._data)
        data = self._data[self._at : stop]
        try:
            payload = framing.feed(data)
            self._at += len(data) - framing.surplus
            request.take(payload)
        except BadFraming as wrong:
            self._refuse_early(request, framing_error(request, wrong))
        except GatewayError as error:
            self._refuse_early(request, error)
        else:
            if framing.complete:
                self._run(request)
            elif self._at < len(self._data):
                self.transport.pause_reading()
                if not self._has_turn:
                    self._has_turn = True
                    self._listener.turns.take(self._read_on)

    def _read_on(self) -> bool:
        """With what is left of chunks that have come, in turn with other connections; returns whether there is more."""
        if not self.transport.is_closing():
            self.transport.resume_reading()
            if self._phase is BODY:
                self._safely(self._read)
        self._has_turn = (
            self._phase is BODY and self._at < len(self._data) and not self.transport.is_closing()
        )
        return self._has_turn

    def _hold(self) -> None:
        """Nothing is read behind a request that is not answered, or for a client that does not take its answers."""
        if self._phase is not HOLDING:
            self._become(HOLDING)
            self.transport.pause_reading()

    def _drop(self, count: int) -> None:
        """Bytes behind the last request: they are read, so that no reset takes its answer away."""
        self._dropped += count
        self._dropped_at = self._loop.time()
        if self._dropped > MAX_DROPPED_BODIES * self._listener.settings.max_body_bytes:
            self.transport.abort()

    def _take_no_more(self) -> None:
        """What else comes is no request."""
        self._data, self._at = b"", 0
        if self._phase is HOLDING:
            self.transport.resume_reading()
        if self._phase is not LAST and self._phase is not LINGERING:
            self._become(LAST)

    # one request

    def _take_up(self, head: request_head.Head) -> None:
        """A head has come. What is refused by it, or has no room, is answered without its body."""
        self._since = self._loop.time()
        self._quiet = None
        request = self._request_of(head)
        self._request, self._framing = request, head.framing()
        self._listener.prepare(request)
        if self._listener.closing:
            request.keep_alive = False
        problem = request.refusal or self._no_room_for(request)
        if self._framing.complete:
            self._run(request)
        elif problem is not None:
            self._refuse_early(request, problem)
        else:
            self._become(BODY)
            if self._at == len(self._data):
                request.expect()

    def _request_of(self, head: request_head.Head) -> ClientRequest:
        listener, path = self._listener, head.path
        route = listener.routes.find(path)
        if route is None:
            path = request_head.decoded(path)
            route = listener.routes.find(path) if request_head.is_plain(path) else None
        return ClientRequest(
            self.transport,
            listener.coalescer,
            listener.budget,
            self._finished,
            head,
            route,
            path,
            self._since,
        )

    def _no_room_for(self, request: ClientRequest) -> GatewayError | None:
        """By the length that its head declares. It holds room for what comes, as it comes."""
        if request.length > request.limit:
            return too_large(request.limit)
        return None if self._listener.budget.fits(request.length) else no_room()

    def _run(self, request: ClientRequest) -> None:
        """It is whole."""
        request.complete()
        self._become(SERVING)
        if not request.keep_alive:
            self._take_no_more()
        elif self._at < len(self._data):
            self._hold()
        request.run()

    def _refuse_early(self, request: ClientRequest, error: GatewayError) -> None:
        """Its body is not waited for."""
        self._take_no_more()
        if request.awaits_body:
            request.refuse_early(error.with_traceback(None))
            request.run()

    def _finished(self) -> None:
        """The request is over."""
        request, self._request, self._framing = self._request, None, None
        self._since = self._loop.time()
        if request is None or self.transport.is_closing():
            return
        if self._phase is LAST or not request.keep_alive or self._listener.closing:
            self._linger()
        elif self._phase is SERVING:
            self._become(IDLE)
        else:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """With what was kept behind an answered request; only for a client that takes its answers."""
        is_free = self._request is None and self._stuck is None and not self.transport.is_closing()
        if is_free and self._phase is HOLDING:
            self._safely(self._release)

    def _release(self) -> None:
        self._become(IDLE)
        self._read()
        if not self._data and not self.transport.is_closing():
            self.transport.resume_reading()

    def _refuse(self, error: GatewayError) -> None:
        """Answers what is no request, and reads no more."""
        self._listener.refused(error)
        route = self._listener.routes.find(request_head.path_in(self._heads.beginning))
        body = error.body(Dialect.OPENAI if route is None else route.dialect)
        fields = [*error.headers(), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        self._listener.coalescer.send(self.transport, head_of(error.status, fields) + body)
        self._take_no_more()
        self._linger()

    def _linger(self) -> None:
        """Says that no more answers come, and reads on a while: bytes that nobody reads would reset the connection."""
        self._take_no_more()
        self._become(LINGERING)
        self._since = self._loop.time()
        self._listener.coalescer.flush()
        if not self.transport.is_closing():
            self.transport.write_eof()

    def _close(self) -> None:
        self._listener.coalescer.flush()
        self.transport.close()

    def _shut(self) -> None:
        if self._request is not None and self._request.handler is not None:
            self._request.handler.shut()

    def _become(self, phase: Phase) -> None:
        self._phase = changed(PHASES, self._phase, phase)

    # what goes out

    def _pause_writing(self) -> None:
        self._stuck = self._untaken(), self._loop.time()
        if self._request is not None and self._request.handler is not None:
            self._request.handler.pause()

    def _resume_writing(self) -> None:
        self._stuck = None
        if self._request is None:
            self._go_on()
        elif self._request.handler is not None:
            self._request.handler.resume()

    # deadlines

    def _look(self, now: float) -> None:
        if self._request is not None and self._request.handler is not None:
            self._request.handler.look(now)
        if self.transport.is_closing() and self._stuck is None:  # until what is left has been taken
            self._stuck = self._untaken(), now
        phase = self._phase
        if phase is LINGERING:
            self._look_at_lingering(now)
        elif self._stuck is not None:
            self._look_at_writing(self._stuck, now)
        elif phase is HOLDING:
            self._look_for_leaving()
        else:
            self._look_at_reading(now)

    def _look_at_lingering(self, now: float) -> None:
        """The client gets as long for its last answer as for any other, and then a while to send its rest and close:
        many a client looks for an answer only when it has sent all."""
        if self._untaken():
            self._since = now
            self._look_at_writing(self._stuck or (self._untaken(), now), now)
        else:
            most = LINGER_S if self._listener.closing else MAX_LINGER_S
            if now - self._since > most or now - max(self._since, self._dropped_at) > LINGER_S:
                self.transport.abort()

    def _look_at_writing(self, stuck: tuple[int, float], now: float) -> None:
        """A client that has taken next to nothing for too long is cut off."""
        self._stuck = stuck
        size = self._untaken()
        if stuck[0] - size >= MIN_TAKEN_BYTES:
            self._stuck = size, now
        elif now - stuck[1] > self._listener.settings.write_timeout_s:
            self.transport.abort()

    def _untaken(self) -> int:
        """Bytes that the client has not acknowledged. The kernel's count: it lets more be written only once a third of
        its buffer, megabytes perhaps, is free, which a slow client takes minutes for."""
        return self.transport.get_write_buffer_size() + unacknowledged(
            self.transport.get_extra_info("socket")
        )

    def _look_for_leaving(self) -> None:
        """While nothing is read a client's leaving is not seen either: the kernel knows it."""
        if has_left(self.transport.get_extra_info("socket")):
            self.transport.abort()

    def _look_at_reading(self, now: float) -> None:
        settings, request, seconds = self._listener.settings, self._request, now - self._since
        if self._phase is HEAD:
            if seconds > settings.head_timeout_s:
                self._refuse(
                    RequestTimeout(f"The request's head took more than {settings.head_timeout_s:g} s")
                )
        elif request is not None:
            if request.awaits_body and (late := self._why_late(request, now)):
                self._refuse_early(request, RequestTimeout(late))
        elif seconds > (FIRST_S if self._listener.closing else settings.keep_alive_s):
            self._close()

    def _why_late(self, request: ClientRequest, now: float) -> str:
        """Why its body is not waited for any longer, or ""."""
        longest, refusals = self._listener.settings.body_timeout_s, self._listener.budget.refusals
        if now - self._since > longest + request.size / MIN_BODY_RATE:
            return f"The request's body took more than {longest:g} s"
        if self._quiet is None or self._quiet[0] != request.size:
            self._quiet = request.size, now, refusals
        _, since, before = self._quiet
        if self._listener.closing and now - since > FIRST_S:
            return (
                f"The gateway ends, and no more of the request's body came for {FIRST_S:g} s: send it again"
            )
        if request.size and refusals > before and now - since > QUIET_S:
            return f"No more of the request's body came for {QUIET_S:g} s, and others need its room: send it again"
        return ""


def framing_error(request: ClientRequest, wrong: BadFraming) -> GatewayError:
    """Why a body is refused that is not framed as its head had said."""
    if request.size + wrong.before > request.limit:
        return too_large(request.limit)
    return InvalidRequest(f"The request's chunks are not those of HTTP/1.1: {wrong}")
