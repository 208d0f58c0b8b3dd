"""One client's connection: parses the requests on it one after another, and enforces the deadlines for their arrival.

Received bytes go to the head reader or to the body's framing, depending on the connection's phase (http/states.py).
While a request waits for its answer, bytes that follow it are kept unparsed and reading from the socket is paused.
Everything here runs on the event loop and never blocks."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from gateway.api.errors import GatewayError, GatewayFault, InvalidRequest, RequestTimeout
from gateway.api.routes import Dialect
from gateway.body.budget import no_room, too_large
from gateway.http.framing import BadFraming, Chunked, Framing
from gateway.http.sockets import has_left, received, unacknowledged
from gateway.http.states import PHASES, Phase, changed
from gateway.server import request_head
from gateway.server.listener import Listener
from gateway.server.request import ClientRequest, head_of

WRITE_BUFFER_BYTES: Final = 4 * 1024  # more unwritten bytes of an answer pause its handler
MIN_TAKEN_BYTES: Final = 4 * 1024  # bytes of an answer that a client must acknowledge in write_timeout_s
TURN_BYTES: Final = 16 * 1024  # bytes of a chunked body parsed in one turn of the loop: chunks may be tiny
MIN_BODY_RATE: Final = 64 * 1024  # bytes/s; a body gets a second more than body_timeout_s per 64 KiB received
MAX_DROPPED_BODIES: Final = 2  # times max_body_bytes: more bytes after the last request abort the connection
LINGER_S: Final = 2.0  # while lingering, seconds without a byte after which the connection is closed
MAX_LINGER_S: Final = 30.0  # seconds that a connection lingers at most, once the client has all of the answer
DRAIN_WAIT_S: Final = 1.0  # during shutdown, seconds for a request to begin, or for more of a body to come
QUIET_S: Final = 10.0  # seconds a body may bring nothing if the body budget refuses other requests meanwhile

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
    """One client's connection. It enters itself in the listener, which checks its deadlines until it is lost.
    It has asyncio.Protocol's methods without inheriting it, so that mypyc can compile it as a native class.
    wire: under TLS, the TCP connection below it, whose handshake is over (server/handshake.py)."""

    def __init__(self, listener: Listener, wire: asyncio.Transport | None = None) -> None:
        settings = listener.settings
        self._listener = listener
        self._wire = wire
        self._arrived = 0  # under TLS: bytes that had come on the wire, as counted while lingering
        self._loop = listener.loop
        self._phase: Phase = NEW
        self._head_reader = request_head.HeadReader(settings.max_head_bytes, settings.max_headers)
        self._data = b""  # bytes that were received and not yet dropped
        self._at = 0  # index in _data of the first byte that is not parsed
        self._has_turn = False  # whether _read_more_chunks is queued in the listener's turns
        self._request: ClientRequest | None = None  # the one whose body is arriving or whose answer is due
        self._framing: Framing | None = None  # that request's body framing
        self._dropped = 0  # bytes that came after the last request and were thrown away
        self._dropped_at = 0.0  # loop time of the newest of them
        self._since = listener.loop.time()  # when the head, body, idle time or lingering began
        # bytes the client has not acknowledged, and loop time of the count; None: writing is not blocked
        self._blocked_write: tuple[int, float] | None = None
        # bytes of the body so far, loop time of the newest, and the budget's refusals until then; None: not yet seen
        self._silent_body: tuple[int, float, int] | None = None

    @property
    def busy(self) -> bool:
        """Whether a request's body is arriving or its answer is due."""
        return self._request is not None

    def check_deadlines(self, now: float) -> None:
        """Refuse or abort whatever is past its deadline; the listener calls it four times a second."""
        self._safely(lambda: self._check_handler_and_phase(now))

    def close_when_idle(self) -> None:
        """For the shutdown: close an idle connection now, else after the request that runs. Leave any other one (new,
        sending a head, slow to take an answer): its client could not know; the next answer or a deadline closes it."""
        if self._request is not None:
            self._request.keep_alive = False
            self._silent_body = None  # so that DRAIN_WAIT_S are counted from now
        elif self._phase is IDLE:
            self._close()

    def abort(self) -> None:
        """Close the connection at once; the listener calls it if even `check_deadlines`, which handles bugs, raises."""
        self.transport.abort()

    def end_at_shutdown(self) -> None:
        """End the request that runs, and close the connection: the drain period has passed."""
        self._safely(self._end_request_at_shutdown)
        self._close()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class, which inherits nothing
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._listener.enter(self)

    def data_received(self, data: bytes) -> None:
        try:  # as in `_safely`, without a closure for each read
            self._receive(data)
        except Exception as fault:  # noqa: BLE001  # the boundary of one connection
            self._handle_fault(fault)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the listener, and tell a request that still runs that its client has left."""
        self._listener.forget(self)
        self._become(CLOSED)
        request, self._request, self._framing, self._data = self._request, None, None, b""
        try:
            if request is not None:
                request.leave()
        except Exception as fault:  # noqa: BLE001  # the boundary of one connection
            self._listener.report(fault)

    def eof_received(self) -> None:
        """Return None, so that asyncio closes the connection, even if the client has closed only its sending side."""

    def pause_writing(self) -> None:
        self._safely(self._pause_writing)

    def resume_writing(self) -> None:
        self._safely(self._resume_writing)

    # bugs in the gateway itself

    def _safely(self, step: Callable[[], None]) -> None:
        """Call `step`; if it raises, log that as a bug in the gateway and end this connection's request only."""
        try:
            step()
        except Exception as fault:  # noqa: BLE001  # the boundary of one connection
            self._handle_fault(fault)

    def _handle_fault(self, fault: Exception) -> None:
        """Report the bug `fault` of the gateway's own, and answer 500; if even that raises, abort the connection."""
        self._listener.report(fault)
        try:
            self._answer_fault()
        except Exception as another:  # noqa: BLE001  # the boundary of one connection
            self._listener.report(another)
            self.transport.abort()

    def _answer_fault(self) -> None:
        """Have the handler tell the client of the fault, or answer 500 if no request runs. Abort if neither can be:
        there is no handler yet, or the last answer is sent."""
        request = self._request
        if request is not None and request.handler is not None:
            self._drop_further_input()
            request.keep_alive = False
            request.handler.fail(GatewayFault())
        elif request is None and self._phase is not LINGERING:
            self.refuse(GatewayFault())
        else:
            self.transport.abort()

    # received bytes

    def _receive(self, data: bytes) -> None:
        """Drop, keep or parse `data`, depending on the phase. Also keep it while the client does not take its answers,
        but not in BODY: a body that has begun is read to its end, within its own deadline."""
        phase = self._phase
        if phase is LAST or phase is LINGERING:
            self._count_dropped(len(data))
        elif phase is SERVING or phase is HOLDING or (self._blocked_write is not None and phase is not BODY):
            self._data += data
            self._stop_reading()
        else:
            self._data = data
            self._read()

    def _read(self) -> None:
        """Parse what is in `_data`, at most to the end of one request: the next one waits until that is answered."""
        if self._phase is not BODY:
            self._read_head()
        if self._phase is BODY and self._at < len(self._data):
            self._read_body()
        if self._at == len(self._data):
            self._data, self._at = b"", 0

    def _read_head(self) -> None:
        """Feed `_data` to the head reader: start the request if its head is complete, refuse it if it is invalid, else
        note when it began, for its deadline."""
        heads = self._head_reader
        try:
            head = heads.feed(self._data, self._at)
        except GatewayError as error:
            self.refuse(error)
            return
        self._at = heads.end
        if head is not None:
            self._start_request(head)
        elif (self._phase is HEAD) is not heads.begun:  # "\r" begins one; "\r\n" is but an empty line
            self._since = self._loop.time()
            self._become(HEAD if heads.begun else IDLE)

    def _read_body(self) -> None:
        """Add what was received of the body to the request, and run it once the body is complete. Of a chunked body,
        parse TURN_BYTES now and leave the rest to later turns of the event loop, with reading paused."""
        request, framing = self._request, self._framing
        assert request is not None
        assert framing is not None
        stop = self._at + TURN_BYTES if isinstance(framing, Chunked) else len(self._data)
        data = self._data[self._at : stop]
        try:
            payload = framing.feed(data)
            self._at += len(data) - framing.surplus  # the surplus is the next request's
            request.add_to_body(payload)
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
                    self._listener.turns.add(self._read_more_chunks)

    def _read_more_chunks(self) -> bool:
        """Parse the next TURN_BYTES of received chunks; `Turns` calls it again while it returns True (more is left).
        If the body was refused meanwhile, only resume reading: what still comes is dropped."""
        if not self.transport.is_closing():
            self.transport.resume_reading()  # _read_body pauses it again if chunks are left
            if self._phase is BODY:
                self._safely(self._read)
        self._has_turn = (
            self._phase is BODY and self._at < len(self._data) and not self.transport.is_closing()
        )
        return self._has_turn

    def _stop_reading(self) -> None:
        """Pause reading and enter HOLDING: a request awaits its answer, or the client does not read its answers."""
        if self._phase is not HOLDING:
            self._become(HOLDING)
            self.transport.pause_reading()

    def _count_dropped(self, count: int) -> None:
        """Count bytes that came after the last request and are thrown away; abort the connection if they are too many.
        They are read because closing a socket with unread bytes resets it, which can lose the answer."""
        self._dropped += count
        self._dropped_at = self._loop.time()
        if self._dropped > MAX_DROPPED_BODIES * self._listener.settings.max_body_bytes:
            self.transport.abort()

    def _drop_further_input(self) -> None:
        """Enter LAST: discard unparsed bytes and what the client still sends. The connection ends with this answer."""
        self._data, self._at = b"", 0
        if self._phase is HOLDING:
            self.transport.resume_reading()
        if self._phase is not LAST and self._phase is not LINGERING:
            self._become(LAST)

    # one request

    def _start_request(self, head: request_head.Head) -> None:
        """Create the request for a complete head, then run it, wait for its body, or refuse it without its body."""
        self._since = self._loop.time()
        self._silent_body = None
        request = self._new_request(head)
        self._request, self._framing = request, head.framing()
        self._listener.prepare(request)
        if self._listener.closing:
            request.keep_alive = False
        problem = request.refusal or self._size_problem(request)
        if self._framing.complete:  # no body, so no problem but a refusal, which `run` answers
            self._run(request)
        elif problem is not None:
            self._refuse_early(request, problem)
        else:
            self._become(BODY)
            if self._at == len(self._data):  # else the client does not wait: the body is here
                request.expect()

    def _new_request(self, head: request_head.Head) -> ClientRequest:
        """Return the request for `head`. Its route, if any, is found by the path as sent, else by the decoded one."""
        listener, path = self._listener, head.path
        route = listener.routes.find(path)
        if route is None:
            path = request_head.decoded(path)
            route = listener.routes.find(path) if request_head.is_plain(path) else None
        return ClientRequest(
            self.transport, listener.coalescer, listener.budget, self._request_finished,
            head, route, path, self._since,
        )  # fmt: skip

    def _size_problem(self, request: ClientRequest) -> GatewayError | None:
        """Return the error for a declared body length that is too large or has no room now, or None. Reserves nothing:
        the budget is charged as the body arrives."""
        if request.length > request.limit:
            return too_large(request.limit)
        return None if self._listener.budget.fits(request.length) else no_room()

    def _run(self, request: ClientRequest) -> None:
        """Start the handler (or its refusal): the body is complete. Unparsed bytes wait until it has answered, or are
        dropped if the connection ends then. `run` comes last: it may answer, and so finish the request, at once."""
        request.complete()
        self._become(SERVING)
        if not request.keep_alive:
            self._drop_further_input()
        elif self._at < len(self._data):
            self._stop_reading()
        request.run()

    def _refuse_early(self, request: ClientRequest, error: GatewayError) -> None:
        """Answer `error`, unless it is answered already, without waiting for the rest of the body, which is dropped."""
        self._drop_further_input()
        if request.awaits_body:
            request.refuse_early(error.with_traceback(None))  # a traceback would make a reference cycle
            request.run()

    def _request_finished(self) -> None:
        """Go on after an answer: linger, become idle, or parse the next request. `ClientRequest._finish` calls it."""
        request, self._request, self._framing = self._request, None, None
        self._since = self._loop.time()
        if request is None or self.transport.is_closing():  # lost, or soon
            return
        if self._phase is LAST or not request.keep_alive or self._listener.closing:
            self._linger()
        elif self._phase is SERVING:
            self._become(IDLE)
        else:
            self._loop.call_soon(self._read_next_request)  # HOLDING; later: the handler is still on the stack

    def _read_next_request(self) -> None:
        """Parse the bytes that were kept in HOLDING, unless the client is still slow to take the answer before. Called
        after that answer, and once the client has caught up: whichever is later does it."""
        is_free = self._request is None and self._blocked_write is None and not self.transport.is_closing()
        if is_free and self._phase is HOLDING:
            self._safely(self._read_held_bytes)

    def _read_held_bytes(self) -> None:
        """Leave HOLDING, parse the next request in the kept bytes, and resume reading if all of them are parsed."""
        self._become(IDLE)
        self._read()
        if not self._data and not self.transport.is_closing():
            self.transport.resume_reading()

    def refuse(self, error: GatewayError) -> None:
        """Answer `error` where there is no request (a bad or late head, a bug), in its path's dialect, and linger."""
        self._listener.refused(error)
        route = self._listener.routes.find(request_head.path_in(self._head_reader.beginning))
        body = error.body(Dialect.OPENAI if route is None else route.dialect)
        fields = [*error.headers(), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        self._listener.coalescer.send(self.transport, head_of(error.status, fields) + body)
        self._linger()

    def _linger(self) -> None:
        """Close the sending side after the last answer, and read on: closing both with unread bytes would reset it."""
        self._drop_further_input()
        self._become(LINGERING)
        self._since = self._loop.time()
        self._listener.coalescer.flush()  # nothing can be written after write_eof
        if self.transport.is_closing():
            return
        if self._wire is None:
            self.transport.write_eof()
        else:
            self._arrived = received(self._wire.get_extra_info("socket"))
            self.transport.close()  # TLS says goodbye, and drops what still comes until the client does

    def _close(self) -> None:
        """Write what waits and close without lingering: it is idle, or the gateway ends."""
        self._listener.coalescer.flush()
        self.transport.close()
        if self._wire is not None:
            self._close_wire(self._wire)

    def _close_wire(self, wire: asyncio.Transport) -> None:
        """Close the TCP connection once all is written to it: TLS alone would wait for the client's goodbye."""
        if not self.transport.get_write_buffer_size():
            wire.close()

    def _end_request_at_shutdown(self) -> None:
        """Have the handler end the request that runs; `end_at_shutdown` guards this against bugs."""
        if self._request is not None and self._request.handler is not None:
            self._request.handler.end_at_shutdown()

    def _become(self, phase: Phase) -> None:
        self._phase = changed(PHASES, self._phase, phase)

    # the answer's flow to the client

    def _pause_writing(self) -> None:
        """Note how much the client has not acknowledged, and pause the handler: our write buffer is full."""
        self._blocked_write = self._unacknowledged_bytes(), self._loop.time()
        if self._request is not None and self._request.handler is not None:
            self._request.handler.pause()

    def _resume_writing(self) -> None:
        """Resume the handler, or go on to the next request if the answer had already ended."""
        self._blocked_write = None
        if self._request is None:
            self._read_next_request()
        elif self._request.handler is not None:
            self._request.handler.resume()

    # deadlines

    def _check_handler_and_phase(self, now: float) -> None:
        """Check the handler's deadlines, then that of the connection's phase. A bug in it ends in `check_deadlines`."""
        if self._wire is not None and not self._check_wire(self._wire):
            return
        if self._request is not None and self._request.handler is not None:
            self._request.handler.check_deadlines(now)
        if self.transport.is_closing() and self._blocked_write is None:  # close() waits for the client
            self._blocked_write = self._unacknowledged_bytes(), now
        phase = self._phase
        if phase is LINGERING:
            self._check_lingering(now)
        elif self._blocked_write is not None:
            self._check_writing(self._blocked_write, now)
        elif phase is HOLDING:
            self._check_for_disconnect()
        else:
            self._check_reading(now)

    def _check_wire(self, wire: asyncio.Transport) -> bool:
        """Under TLS: return whether the connection is still there, go on with closing it, and count what TLS drops."""
        connection = self.transport.get_extra_info("socket")
        if connection is None:
            return False  # connection_lost is about to be called
        if wire.is_closing() and not self.transport.is_closing():
            self.transport.abort()  # the client ended TCP below TLS, which goes on and drops what is written
            return False
        if self._phase is LINGERING:
            arrived = received(connection)
            if arrived > self._arrived:
                self._count_dropped(arrived - self._arrived)
                self._arrived = arrived
        elif self.transport.is_closing():
            self._close_wire(wire)
        return True

    def _check_lingering(self, now: float) -> None:
        """Abort a lingering connection: by the write timeout while the answer is not all acknowledged; then LINGER_S
        after the newest byte, or after MAX_LINGER_S (at shutdown, LINGER_S) in all. So long since many clients read the
        answer only when they have sent everything."""
        if self._unacknowledged_bytes():
            self._since = now  # lingering counts from the whole answer's acknowledgement
            self._check_writing(self._blocked_write or (self._unacknowledged_bytes(), now), now)
        else:
            most = LINGER_S if self._listener.closing else MAX_LINGER_S
            if now - self._since > most or now - max(self._since, self._dropped_at) > LINGER_S:
                self.transport.abort()

    def _check_writing(self, blocked: tuple[int, float], now: float) -> None:
        """Abort if the client acknowledges fewer than MIN_TAKEN_BYTES in write_timeout_s. blocked: unacknowledged bytes
        when that time began, and the loop time then; stored in `_blocked_write`."""
        self._blocked_write = blocked
        size = self._unacknowledged_bytes()
        if blocked[0] - size >= MIN_TAKEN_BYTES:
            self._blocked_write = size, now
        elif now - blocked[1] > self._listener.settings.write_timeout_s:
            self.transport.abort()

    def _unacknowledged_bytes(self) -> int:
        """Return how many bytes the client has not acknowledged, in our buffer and the kernel's. Ours alone can
        stay full for minutes: the kernel takes more only once a third of its buffer, maybe megabytes, is free."""
        unwritten = self.transport.get_write_buffer_size()
        if self._wire is not None:
            unwritten += self._wire.get_write_buffer_size()
        return unwritten + unacknowledged(self.transport.get_extra_info("socket"))

    def _check_for_disconnect(self) -> None:
        """Abort if the client has closed its side; asyncio does not notice while reading is paused, the kernel does."""
        if has_left(self.transport.get_extra_info("socket")):
            self.transport.abort()

    def _check_reading(self, now: float) -> None:
        """Refuse a head or a body that is late with 408, and close a connection that was idle for too long."""
        settings, request, seconds = self._listener.settings, self._request, now - self._since
        if self._phase is HEAD:
            if seconds > settings.head_timeout_s:
                self.refuse(
                    RequestTimeout(f"The request's head took more than {settings.head_timeout_s:g} s")
                )
        elif request is not None:
            if request.awaits_body and (late := self._body_timeout(request, now)):
                self._refuse_early(request, RequestTimeout(late))
        elif seconds > (DRAIN_WAIT_S if self._listener.closing else settings.keep_alive_s):
            self._close()

    def _body_timeout(self, request: ClientRequest, now: float) -> str:
        """Return the message for a body that is not waited for any longer, or "" if it still has time. It is late if
        slow as a whole, silent at shutdown, or silent with bytes in the budget while others were refused."""
        longest, refusals = self._listener.settings.body_timeout_s, self._listener.budget.refusals
        if now - self._since > longest + request.size / MIN_BODY_RATE:
            return f"The request's body took more than {longest:g} s"
        if self._silent_body is None or self._silent_body[0] != request.size:
            self._silent_body = request.size, now, refusals
        _, since, before = self._silent_body
        if self._listener.closing and now - since > DRAIN_WAIT_S:
            return f"The gateway ends, and no more of the request's body came for {DRAIN_WAIT_S:g} s: send it again"
        if request.size and refusals > before and now - since > QUIET_S:
            return f"No more of the request's body came for {QUIET_S:g} s, and others need its room: send it again"
        return ""


def framing_error(request: ClientRequest, wrong: BadFraming) -> GatewayError:
    """Return the error for a badly framed body: too large if it was so before the fault, else what is wrong."""
    if request.size + wrong.before > request.limit:
        return too_large(request.limit)
    return InvalidRequest(f"The request's chunks are not those of HTTP/1.1: {wrong}")
