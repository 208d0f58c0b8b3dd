"""Pass a worker's answer on to the client, and put comments and errors into it.

Nothing is sent to the client before the worker's answer is there, so that an error until then can still be a status.
A stream that stays silent for too long gets comments; after the first comment, an error is an event in the stream."""

from typing import Final

from gateway.api.errors import GatewayError
from gateway.api.routes import Route
from gateway.fleet.workers import Worker
from gateway.http import headers
from gateway.proxy.late_error import LateError
from gateway.proxy.response_affinity import ResponseAffinity
from gateway.proxy.response_filter import Edits, PassThrough, ResponseFilter, StreamFilter, filter_for
from gateway.server.request import ClientRequest
from gateway.upstream.connection import Exchange

COMMENT: Final = b": keep-alive\n\n"  # a line of server-sent events that clients ignore


class Relay:
    """The answer of one request, which the request's handler owns. status: as sent to the client, 0 until then; stream:
    whether it is a stream; filter: reads and changes its body on the way."""

    def __init__(
        self, request: ClientRequest, route: Route, affinity: ResponseAffinity, request_id: bytes
    ) -> None:
        self._request = request
        self._route = route
        self._affinity = affinity
        self._id = request_id  # as the client gets it
        self._fields: headers.Headers | None = None  # of the worker's answer, None until `open`
        self._learning: Worker | None = None  # while the id of its new stored response is looked for
        self._model = ""  # that makes it
        self.filter: ResponseFilter = PassThrough()
        self.status = 0
        self.stream = False

    @property
    def has_last_event(self) -> bool:
        """Whether a stream's last event is complete: only the end of the HTTP body is missing, which is no failure."""
        return isinstance(self.filter, StreamFilter) and self.filter.finished

    @property
    def is_an_error(self) -> bool:
        """Whether the answer is a worker's error that came after a comment, which had status 200; see `close`."""
        return isinstance(self.filter, LateError)

    def open(self, exchange: Exchange, worker: Worker, model: str, edits: Edits, *, alone: bool) -> bool:
        """Take the worker's head and choose the filter. An answer that is not read (PassThrough) begins now, any other
        with its first byte. alone: no byte of the body has come with the head, which is sent by itself. Return False if
        the answer cannot follow the comments that were sent: it is no stream."""
        request, answer_filter = self._request, self._filter_for(exchange, edits)
        if request.begun and not isinstance(answer_filter, StreamFilter):  # a comment is out, with status 200
            if exchange.status < 400:
                return False
            answer_filter = LateError(exchange.status, self._route.dialect)
        self._fields, self._learning = exchange.headers, worker if self._route.stores else None
        self._model = model
        self.status, self.filter = exchange.status, answer_filter
        self.stream = request.begun or isinstance(answer_filter, StreamFilter)
        if isinstance(answer_filter, PassThrough):
            self._begin()
            if alone:
                request.flush()
        return True

    def _filter_for(self, exchange: Exchange, edits: Edits) -> ResponseFilter:
        """Return the filter for the worker's answer: only one with status 200, no error, is read and changed."""
        if exchange.status != 200:
            return PassThrough()
        kind = headers.get(exchange.headers, b"content-type") or b""
        return filter_for(kind, self._route.ends, edits)

    def chunk(self, framed: bytes) -> None:
        """Send one whole chunk: with its frame, if the filter can pass it so, which is cheap."""
        request = self._request
        passed = self.filter.pass_on(framed) if request.chunked and self._learning is None else b""
        if passed:
            request.write_framed(passed)
        else:
            self.payload(framed[framed.index(b"\r\n") + 2 : -2])

    def payload(self, data: bytes) -> None:
        """Send a piece of the worker's body through the filter. It begins the answer with the first byte to send."""
        if self._learning is not None and self._affinity.learn(data, self._learning, self._model):
            self._learning = None  # its id is found
        data = self.filter.feed(data)
        if data and not self._request.begun:
            self._begin()
        self._request.write(data)

    def send_rest(self) -> bool:
        """Send what the filter still holds: the worker's body has ended. Return whether the answer is complete. If not,
        and it has not begun, send nothing: the error can still be the status."""
        request, rest = self._request, self.filter.rest()
        if not request.begun and self.filter.whole:
            self._begin(rest)  # nothing was sent before: this is the whole body
        request.write(rest if request.begun else b"")
        return self.filter.whole

    def close(self) -> None:
        """End the answer. After a late error, close the connection instead: the answer must not look complete."""
        if self.is_an_error:
            self._request.break_off()
        else:
            self._request.end()

    def comment(self) -> None:
        """Send a comment to keep a silent stream open; not inside an event, and not into what turned out to be no
        stream. Begins the answer with status 200 if the worker has not answered yet."""
        request = self._request
        if self._fields is None and not request.begun:
            self.stream, self.status, self.filter = True, 200, StreamFilter(self._route.ends, Edits())
            request.begin(200, [*headers.STREAM, *headers.ours(self._id)])
        if isinstance(self.filter, StreamFilter) and self.filter.between_events:
            if not request.begun:
                self._begin()
            request.write(COMMENT)

    def refuse(self, error: GatewayError) -> None:
        """Send `error` as the whole answer: nothing has been sent yet."""
        self.status = error.status
        self._request.refuse(error, headers.ours(self._id))

    def break_off(self, error: GatewayError) -> None:
        """Break off an answer that has begun. A stream between two events gets `error` as an event first."""
        if isinstance(self.filter, StreamFilter) and self.filter.between_events:
            self._request.write(error.sse_event(self._route.dialect))
        self._request.break_off()

    def _begin(self, whole: bytes | None = None) -> None:
        """Make the answer's head, which is sent with the next bytes; `open` has come before. whole: the whole body,
        whose length may differ from the worker's. A stream has no length, since comments and an error may be added."""
        fields = headers.response_headers(self._fields or [], self._id)
        if whole is not None:
            fields = headers.with_length(fields, len(whole))
        elif self.stream:
            fields = headers.without_length(fields)
        self._request.begin(self.status, fields)
