"""The hot path: one request from its head to its last byte, read top-down.

context -> route -> card -> lease -> send (-> once more, before the first byte) -> relay -> release and log

Nothing here waits: what comes next is called when it comes. Once a byte of the answer has been relayed an error can no
longer be a status: a stream gets an error event, and the body is left without its end, so that a broken answer never
looks finished.
"""

from gateway import bodies, headers, selection
from gateway.answers import Document, Edits, Names, Opaque, Reading, Stream, Tokens, reading_of
from gateway.bodies import Asked
from gateway.errors import (
    BadWorkerResponse,
    GatewayError,
    Overloaded,
    QueueFull,
    ResponseNotFound,
    WorkerDisconnected,
    WorkerTimeout,
    WorkerUnreachable,
)
from gateway.exchange import Exchange, StaleConnection
from gateway.health import Failure
from gateway.models import Options
from gateway.request import ClientRequest
from gateway.routes import Kind, Route, stored_id
from gateway.shared import Shared
from gateway.workers import Lease, Worker

UNKNOWN = "unknown"  # the label of a model that no card declares
COMMENT = b": keep-alive\n\n"
OWN_FAILURES = (502, 503, 504)  # statuses by which a worker says that it cannot serve


NO_OPTIONS = Options()


class Call:
    """One request while it runs. Times are of the loop's clock, in seconds; first_byte counts from the start."""

    __slots__ = (
        "_answered", "_asked", "_bound", "_commented", "_exchange", "_learns", "_lease", "_names", "_options", "_paused",
        "_reading", "_request", "_shared", "_went_elsewhere", "attempts", "code", "ending", "first_byte", "heard", "id",
        "model", "pieces", "queued", "route", "started", "status", "stream", "waits_since", "worker",
    )  # fmt: skip

    def __init__(self, shared: Shared, request: ClientRequest, route: Route, call_id: bytes) -> None:
        self._shared = shared
        self._request = request
        self._asked: Asked | None = None
        self._options = NO_OPTIONS
        self._names = Names.REASONING
        self._exchange: Exchange | None = None
        self._lease: Lease | None = None
        self._reading: Reading = Opaque()
        self._answered = False  # a head has come
        self._bound = False  # to one worker, which alone can answer
        self._went_elsewhere = False
        self._paused = False  # the client does not keep up
        self._learns = route.stores  # the answer's id
        self.heard = self._commented = 0.0
        self.waits_since: float | None = None  # in the queue
        self.id = call_id
        self.route = route
        self.started = request.arrived
        self.model = UNKNOWN
        self.worker: Worker | None = None
        self.attempts = 0
        self.queued = 0.0  # seconds
        self.status = 0
        self.stream = False
        self.ending = "broken"
        self.code: str | None = None
        self.first_byte: float | None = None
        self.pieces = 0  # of the answer, as they came from the worker

    @property
    def tokens(self) -> Tokens | None:
        return self._reading.tokens

    # the way to the worker

    def start(self) -> None:
        """The request is whole and its turn has come."""
        try:
            asked = self._read()
            if self.route.kind is Kind.STORED:
                self._send(self._holder(stored_id(self.route, self._request.path) or b""), asked)
            else:
                self._look_up(asked)
                self._dispatch(asked)
        except GatewayError as error:
            self.fail(error)

    def _read(self) -> Asked:
        request = self._request
        content_type = headers.get(request.headers, b"content-type") or b""
        self._asked = asked = bodies.read(
            request.body(), content_type, self.route, self._shared.models.aliases
        )
        return asked

    def _look_up(self, asked: Asked) -> None:
        """What is declared of the model."""
        cards = self._shared.fleet.catalog.resolve(asked.model)
        if not cards:
            raise self._shared.fleet.why_unavailable(asked.model)
        self.model, self._options = asked.model, self._shared.models.options[asked.model]
        if self.route.reasons and any(card.reasons for card in cards):
            self._names = Names(asked.alias.reasoning) if asked.alias is not None else Names.BOTH
        bodies.check_media(asked, cards)
        bodies.check_size(asked, self.route, cards, self._shared.settings.max_text_bytes)

    def _dispatch(self, asked: Asked) -> None:
        """Sends the request to a worker, or puts it in line for one. Raises GatewayError."""
        shared = self._shared
        pool = shared.fleet.pool(self.model)
        if not pool:
            raise shared.fleet.why_unavailable(self.model)
        previous = asked.fields.get("previous_response_id") if self.route.stores else None
        if isinstance(previous, str):
            self._send(self._holder(previous.encode()), asked)
        elif free := self._with_room_behind_the_line(pool):
            self._send(self._choose(free, asked), asked)
        elif shared.queues.enter(self.model, self, self._options.queue.most):
            self.waits_since = shared.upstream.loop.time()
        else:
            raise QueueFull(
                f"Every worker of {self.model!r} has as many requests as it takes, and the queue is full"
            )

    def room(self) -> bool:
        """The call is first in line, and a worker may have room; returns whether it has gone there."""
        free = self._with_room(self._shared.fleet.pool(self.model))
        if not free or self._asked is None or self.waits_since is None:
            return False
        self.queued, self.waits_since = self._shared.upstream.loop.time() - self.waits_since, None
        self._send(self._choose(free, self._asked), self._asked)
        return True

    def _with_room_behind_the_line(self, pool: tuple[Worker, ...]) -> tuple[Worker, ...]:
        """A worker may have become ready since: whoever waits goes first."""
        self._shared.queues.serve()
        return self._with_room(pool)

    def _with_room(self, pool: tuple[Worker, ...]) -> tuple[Worker, ...]:
        most = self._options.in_flight_per_worker
        return pool if most is None else tuple(worker for worker in pool if worker.in_flight < most)

    def _choose(self, pool: tuple[Worker, ...], asked: Asked) -> Worker:
        shown = selection.Asked(self._request.headers, asked.fields, asked.body)
        return self._shared.selectors[self.model].choose(pool, shown, self._shared.upstream.loop.time())

    def _holder(self, response: bytes) -> Worker:
        """The worker that has a stored response."""
        worker = self._shared.stored.worker_of(response)
        if worker is None or not self._shared.fleet.has(worker):
            raise ResponseNotFound(f"No worker has the response {response.decode('latin-1')[:100]!r}")
        self.model, self._bound = self._shared.fleet.catalog.by_slug[worker.slug].names[0], True
        self._options = self._shared.models.options[self.model]
        return worker

    def _send(self, worker: Worker, asked: Asked, *, fresh: bool = False) -> None:
        upstream, request = self._shared.upstream, self._request
        target = request.path + request.query if self.route.kind is Kind.STORED else self.route.at_worker
        head = headers.request_head(
            self.route.method, target, worker.host_header, request.headers, len(asked.body), self.id
        )
        if not self.attempts:
            self._shared.budget.earn()
        self.attempts += 1
        self.worker, self._lease = worker, worker.lease()
        self.heard = upstream.loop.time()
        self._exchange = upstream.start(worker, head, asked.body, self, fresh=fresh)

    # the way back

    def on_head(self, *, alone: bool) -> None:
        exchange, request, worker = self._exchange, self._request, self.worker
        assert exchange is not None
        assert worker is not None
        if exchange.status in OWN_FAILURES:
            self._shared.fleet.failed(worker, Failure.UNAVAILABLE)
            if exchange.status == Overloaded.status and self._goes_elsewhere():
                return
        elif exchange.status < 400:
            self._shared.fleet.succeeded(worker)
        self.heard = self._shared.upstream.loop.time()
        self._answered = True
        reading = self._reading_of(exchange)
        if request.begun and not isinstance(reading, Stream):  # with a comment: the status was 200
            self.fail(WorkerDisconnected(f"The worker answered with status {exchange.status} and no stream"))
            return
        self.status, self.stream, self._reading = exchange.status, isinstance(reading, Stream), reading
        if not request.begun and not (isinstance(reading, Document) and reading.holds):
            fields = headers.response_headers(exchange.headers, self.id)
            is_changed = isinstance(reading, Stream)  # by edits, comments or an error event
            request.begin(exchange.status, headers.without_length(fields) if is_changed else fields)
            if alone:
                request.flush()
        self._let_go_of_the_body()

    def _let_go_of_the_body(self) -> None:
        """It cannot be sent again: a stream may last an hour, and an image is megabytes."""
        assert self._asked is not None
        self._asked = replace(self._asked, body=b"", fields={})

    def _note_piece(self) -> None:
        """A piece of the body has come. vLLM sends a stream's head at once: its first byte is the first of its body."""
        self.heard = self._shared.upstream.loop.time()
        if not self.pieces:
            self.first_byte = self.heard - self.started
        self.pieces += 1

    def on_chunk(self, framed: bytes) -> None:
        """The straight way of a stream: the worker's bytes as they are, frame and all."""
        request = self._request
        if request.chunked and not self._learns and self._reading.passes(framed):
            self._note_piece()
            request.write_framed(framed)
        else:
            self.on_payload(framed[framed.index(b"\r\n") + 2 : -2])

    def on_payload(self, data: bytes) -> None:
        self._note_piece()
        if self._learns and self.worker is not None:
            self._learns = not self._shared.stored.learn(data, self.worker)
        data = self._reading.feed(data)
        if data and not self._request.begun:
            self._begin_document()  # in parts, and as it is
        self._request.write(data)

    def on_end(self) -> None:
        request, rest = self._request, self._reading.rest()
        if not request.begun:
            self._begin_document(rest)
        request.write(rest)
        if not self._reading.whole and self.worker is not None:
            self._shared.fleet.failed(self.worker, Failure.BROKEN)
            self.fail(WorkerDisconnected("The worker ended its stream before the last event"))
            return
        if self.worker is not None and self.status < 400:
            self._shared.fleet.completed(self.worker)
        self._complete()

    def _complete(self) -> None:
        self.ending = "complete"
        self._release()
        self._request.end()
        self._shared.record(self)

    def _reading_of(self, exchange: Exchange) -> Reading:
        assert self._asked is not None
        kind = headers.get(exchange.headers, b"content-type") or b""
        edits = Edits(self._names, self._asked.hides_usage)
        return reading_of(kind, self.route.ends, edits) if exchange.status == 200 else Opaque()

    def _begin_document(self, whole: bytes | None = None) -> None:
        """The head of an answer that was held back; one that is whole has another length than the worker said."""
        assert self._exchange is not None
        fields = headers.response_headers(self._exchange.headers, self.id)
        self._request.begin(self.status, fields if whole is None else headers.with_length(fields, len(whole)))

    # failures, and what is done once more

    def on_failure(self, error: Exception) -> None:
        """The exchange has failed."""
        worker = self.worker
        assert worker is not None
        if isinstance(error, StaleConnection):
            self._retry(worker, fresh=True)  # it has done nothing yet, and a fresh connection is never stale
            return
        if isinstance(self._reading, Stream) and self._reading.whole:
            self._complete()  # its last event has come: only the body's end was missing
            return
        failure = self._failure_of(error)
        if failure is not None:
            self._shared.fleet.failed(worker, failure)
        if failure is not Failure.CONNECT or not self._goes_elsewhere():
            assert isinstance(error, GatewayError)
            self.fail(error)

    def _failure_of(self, error: Exception) -> Failure | None:
        """What an exchange's failure counts as, or None if it was not the worker's."""
        if isinstance(error, WorkerUnreachable):
            return Failure.CONNECT
        if not isinstance(error, WorkerDisconnected | BadWorkerResponse):
            return None
        return Failure.BROKEN if self._answered else Failure.RESET

    def _goes_elsewhere(self) -> bool:
        """Sends the request to another worker of the pool, if there is one and a retry is left."""
        pool, asked = self._shared.fleet.pool(self.model), self._asked
        others = self._with_room(tuple(other for other in pool if other is not self.worker))
        if not others or asked is None or self._bound or self._went_elsewhere or not self._shared.budget.spend():
            return False
        self._went_elsewhere = True
        self._retry(self._choose(others, asked))
        return True

    def _retry(self, worker: Worker, *, fresh: bool = False) -> None:
        assert self._asked is not None
        place = worker.lease()  # which nobody in the line takes meanwhile
        self._release()
        place.end()
        self._send(worker, self._asked, fresh=fresh)

    # the client's doings

    def on_gone(self) -> None:
        """The client has left, which frees the engine. It may leave after a stream's last event."""
        self._release()
        if isinstance(self._reading, Stream) and self._reading.whole:
            self.ending = "complete"
        else:
            self.status, self.ending = 499, "client_gone"
        self._shared.record(self)

    def pause(self) -> None:
        self._paused = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        self._paused, self.heard = False, self._shared.upstream.loop.time()
        if self._exchange is not None:
            self._exchange.resume()

    # time

    def look(self, now: float) -> None:
        """Deadlines, and the comments that keep a silent stream alive."""
        if self.waits_since is not None and self._shared.queues.is_first(self.model, self):
            self._shared.queues.serve()
        error = self._overdue_in_line(now) if self.waits_since is not None else self._overdue(now)
        if error is not None:
            self.fail(error)
        elif self._is_silent(now):
            self._comment(now)

    def _overdue_in_line(self, now: float) -> GatewayError | None:
        wait = self._options.queue.wait_s
        if self.waits_since is None or now - self.waits_since <= wait:
            return None
        return Overloaded(f"No worker of {self.model!r} had room for the request within {wait:g} s")

    def _overdue(self, now: float) -> GatewayError | None:
        worker, limits = self.worker, self._options.deadlines
        if self._exchange is None or worker is None:
            return None
        if now - self.started > limits.total_s:
            return WorkerTimeout(f"The request took longer than {limits.total_s:g} s")
        limit = limits.first_byte_s if self.first_byte is None else limits.idle_s
        if now - self.heard <= limit or self._paused:
            return None
        if self.first_byte is not None:
            self._shared.fleet.failed(worker, Failure.BROKEN)
        elif self.stream_is_asked:  # another answer's first byte may just have much before it
            self._shared.fleet.failed(worker, Failure.FIRST_BYTE)
        return WorkerTimeout(f"A worker of {worker.slug} sent nothing for {limit:g} s")

    @property
    def stream_is_asked(self) -> bool:
        return self._asked is not None and self._asked.stream

    def _is_silent(self, now: float) -> bool:
        """Whether a stream's client has heard nothing for a while, for want of anything to say."""
        if not self.stream_is_asked or self._paused or self._exchange is None:
            return False
        return now - max(self.heard, self._commented) > self._shared.settings.comment_s

    def _comment(self, now: float) -> None:
        """A line that every reader of events passes over, so that nothing on the way takes the silence for an end."""
        self._commented = now
        if not self._request.begun:
            self.stream, self.status, self._reading = True, 200, Stream(self.route.ends, Edits())
            self._request.begin(200, [*headers.STREAM, *headers.ours(self.id)])
        if isinstance(self._reading, Stream) and self._reading.between_events:
            self._request.write(COMMENT)

    # the end

    def fail(self, error: GatewayError) -> None:
        """Tells the client, as far as it can still be told."""
        request = self._request
        self._release()
        self.code = error.code
        if not request.begun:
            self.status, self.ending = error.status, "refused"
            request.refuse(error, headers.ours(self.id))
        else:
            if isinstance(self._reading, Stream) and self._reading.between_events:
                request.write(error.sse_event(self.route.dialect))
            request.break_off()
        self._shared.record(self)

    def shut(self) -> None:
        """The gateway ends."""
        self.fail(WorkerDisconnected("The gateway is shutting down"))

    def _release(self) -> None:
        """Gives the lease back, or the place in the line; an exchange that is not over is given up, which frees the
        engine."""
        if self.waits_since is not None:
            self.queued, self.waits_since = self._shared.upstream.loop.time() - self.waits_since, None
            self._shared.queues.leave(self.model, self)
        exchange, self._exchange = self._exchange, None
        lease, self._lease = self._lease, None
        if exchange is not None:
            exchange.cancel()
        if lease is not None:
            lease.end()
            self._shared.queues.serve()
