"""An answer on its way from the worker to the client, byte by byte, and what is put into it.

Nothing of it goes out before there is something of the worker's to send: until then an error can still be a status. A
stream that is silent gets comments; once the first is out, an error is an event.
"""

from typing import Final

from gateway.api.errors import GatewayError
from gateway.api.routes import Route
from gateway.fleet.workers import Worker
from gateway.http import headers
from gateway.proxy.late_error import LateError
from gateway.proxy.response_affinity import ResponseAffinity
from gateway.proxy.response_filter import Edits, Opaque, Reading, Stream, reading_of
from gateway.server.request import ClientRequest
from gateway.upstream.connection import Exchange

COMMENT: Final = b": keep-alive\n\n"


class Relay:
    """Of one request. status: the answer's, as the worker or we have said it; stream: whether it is one."""

    def __init__(
        self, request: ClientRequest, route: Route, affinity: ResponseAffinity, call_id: bytes
    ) -> None:
        self._request = request
        self._route = route
        self._affinity = affinity
        self._id = call_id
        self._fields: headers.Headers | None = None  # of the worker's head, once it has come
        self._learning: Worker | None = None  # whose response's id is looked for
        self.reading: Reading = Opaque()
        self.status = 0
        self.stream = False

    @property
    def is_told(self) -> bool:
        """Whether the answer's own last word has come, so that only the body's end can be missing."""
        return isinstance(self.reading, Stream) and self.reading.finished

    @property
    def is_an_error(self) -> bool:
        """Whether it is a worker's error behind a comment of ours."""
        return isinstance(self.reading, LateError)

    def open(self, exchange: Exchange, worker: Worker, edits: Edits, *, alone: bool) -> bool:
        """The worker's head has come; alone: no byte of the body with it. Returns whether it can be an answer to what
        has gone out."""
        request, reading = self._request, self._reading_of(exchange, edits)
        if request.begun and not isinstance(reading, Stream):  # with a comment: its status was 200
            if exchange.status < 400:
                return False
            reading = LateError(exchange.status, self._route.dialect)
        self._fields, self._learning = exchange.headers, worker if self._route.stores else None
        self.status, self.reading = exchange.status, reading
        self.stream = request.begun or isinstance(reading, Stream)
        if isinstance(reading, Opaque):
            self._begin()
            if alone:
                request.flush()
        return True

    def _reading_of(self, exchange: Exchange, edits: Edits) -> Reading:
        if exchange.status != 200:
            return Opaque()
        kind = headers.get(exchange.headers, b"content-type") or b""
        return reading_of(kind, self._route.ends, edits)

    def chunk(self, framed: bytes) -> None:
        """The straight way of a stream: the worker's bytes as they are, frame and all."""
        request = self._request
        if request.chunked and self._learning is None and self.reading.passes(framed):
            request.write_framed(framed)
        else:
            self.payload(framed[framed.index(b"\r\n") + 2 : -2])

    def payload(self, data: bytes) -> None:
        if self._learning is not None and self._affinity.learn(data, self._learning):
            self._learning = None
        data = self.reading.feed(data)
        if data and not self._request.begun:
            self._begin()
        self._request.write(data)

    def rest(self) -> bool:
        """The worker's body has ended: sends what was held back of it. Returns whether the answer is whole."""
        request, rest = self._request, self.reading.rest()
        if not request.begun and self.reading.whole:
            self._begin(rest)
        request.write(rest if request.begun else b"")
        return self.reading.whole

    def close(self) -> None:
        """The answer's end; behind an error that was no status there is none, so that it never looks finished."""
        if self.is_an_error:
            self._request.break_off()
        else:
            self._request.end()

    def comment(self) -> None:
        """A line that every reader of events passes over, so that nothing on the way takes the silence for an end."""
        request = self._request
        if self._fields is None and not request.begun:
            self.stream, self.status, self.reading = True, 200, Stream(self._route.ends, Edits())
            request.begin(200, [*headers.STREAM, *headers.ours(self._id)])
        if isinstance(self.reading, Stream) and self.reading.between_events:
            if not request.begun:
                self._begin()
            request.write(COMMENT)

    def refuse(self, error: GatewayError) -> None:
        """The error is the whole answer."""
        self.status = error.status
        self._request.refuse(error, headers.ours(self._id))

    def break_off(self, error: GatewayError) -> None:
        """Tells a client whose answer has begun, as far as it can be told."""
        if isinstance(self.reading, Stream) and self.reading.between_events:
            self._request.write(error.sse_event(self._route.dialect))
        self._request.break_off()

    def _begin(self, whole: bytes | None = None) -> None:
        """The answer's head, with its first bytes. A whole document may have another length than the worker said, and a
        stream none, as comments and an error event may come into it."""
        fields = headers.response_headers(self._fields or [], self._id)
        if whole is not None:
            fields = headers.with_length(fields, len(whole))
        elif self.stream:
            fields = headers.without_length(fields)
        self._request.begin(self.status, fields)
