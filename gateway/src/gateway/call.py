"""The hot path: one request from its head to its last byte, read top-down.

context -> route -> card -> lease -> send (-> once more, before the first byte) -> relay -> release and log

Nothing here waits: what comes next is called when it comes. Once a byte of the answer is out, an error can be no
status: a stream gets an error event, and the body is left without its end: no broken answer looks finished.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from gateway import bodies, codings, headers, selection
from gateway.answers import Edits, Names, Opaque, Reading, Stream, reading_of
from gateway.bodies import Asked
from gateway.errors import (
    BadWorkerResponse,
    GatewayError,
    Overloaded,
    QueueFull,
    WorkerDisconnected,
    WorkerTimeout,
    WorkerUnreachable,
)
from gateway.exchange import Exchange, StaleConnection
from gateway.health import Failure
from gateway.ids import RequestId
from gateway.models import Options
from gateway.pace import Pace
from gateway.request import ClientRequest
from gateway.routes import Kind, Route, stored_id
from gateway.shared import Shared
from gateway.workers import Lease, Worker

UNKNOWN: Final = "unknown"  # the label of a model that no card declares
COMMENT: Final = b": keep-alive\n\n"
OWN_FAILURES: Final = (502, 503, 504)  # statuses by which a worker says that it cannot serve
NO_OPTIONS: Final = Options()


class Call:
    """One request while it runs. Times are of the loop's clock, in seconds."""

    __slots__ = (
        "_answered", "_asked", "_bound", "_decoding", "_exchange", "_hides_usage", "_learns", "_lease", "_names",
        "_options", "_request", "_shared", "_went_elsewhere", "attempts", "code", "ending", "id", "model", "pace",
        "queued", "reading", "route", "sent_id", "status", "stream", "stream_is_asked", "waits_since", "worker",
    )  # fmt: skip

    def __init__(self, shared: Shared, request: ClientRequest, route: Route, ids: RequestId) -> None:
        self._shared = shared
        self._request = request
        self._asked: Asked | None = None  # until a head has come: then it cannot be sent again
        self._options = NO_OPTIONS
        self._names = Names.REASONING
        self._decoding: asyncio.Future[bytes] | None = None
        self._exchange: Exchange | None = None
        self._lease: Lease | None = None
        self.reading: Reading = Opaque()
        self._answered = False  # a head has come
        self._bound = self._went_elsewhere = False  # bound: to one worker, which alone can answer
        self._learns = route.stores  # the answer's id
        self.waits_since: float | None = None  # in the queue
        self.id, self.sent_id = ids
        self.route = route
        self.pace = Pace(request.arrived)
        self.model = UNKNOWN
        self.worker: Worker | None = None
        self.queued = 0.0  # seconds
        self.attempts = self.status = 0
        self._hides_usage = self.stream_is_asked = self.stream = False
        self.ending = "broken"
        self.code: str | None = None

    # the way to the worker

    def start(self) -> None:
        """The request is whole and its turn has come."""
        self._safely(self._start)

    def _start(self) -> None:
        coding = codings.coding_of(self._request.headers)
        if coding is None:
            self._route(self._request.body())
        else:
            most = self._shared.settings.max_body_bytes
            self._decoding = self._shared.desk.decode(self._request.body(), coding, most, self._on_decoded)

    def _on_decoded(self, decoding: asyncio.Future[bytes]) -> None:
        if not decoding.cancelled():
            self._safely(lambda: self._route(decoding.result()))

    def _route(self, body: bytes) -> None:
        asked = self._read(body)
        if self.route.kind is Kind.STORED:
            self._send(self._holder(stored_id(self.route, self._request.path) or b""), asked)
        else:
            self._look_up(asked)
            self._dispatch(asked)

    def _safely(self, step: Callable[[], None]) -> None:
        """An error, and any fault of the gateway's own, ends this request and no other."""
        try:
            step()
        except GatewayError as error:
            self.fail(error)
        except Exception as fault:  # noqa: BLE001  # the boundary of one request
            self._shared.log.fault(fault, id=self.id.decode())
            self.fail(GatewayError("The gateway failed at this request; its log says how"))

    def _read(self, body: bytes) -> Asked:
        most = self._shared.settings.max_text_bytes
        content_type = headers.get(self._request.headers, b"content-type") or b""
        asked = bodies.read(body, content_type, self.route, self._shared.models.aliases, most)
        self._asked, self._hides_usage, self.stream_is_asked = asked, asked.hides_usage, asked.stream
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
        if not shared.fleet.pool(self.model):
            raise shared.fleet.why_unavailable(self.model)
        previous = asked.fields.get("previous_response_id") if self.route.stores else None
        if isinstance(previous, str):
            self._send(self._holder(previous.encode()), asked)
        elif free := self._free_behind_the_line():
            self._send(self._choose(free, asked), asked)
        elif shared.queues.enter(self.model, self, self._options.queue.most):
            self.waits_since = shared.upstream.loop.time()
        else:
            raise QueueFull(
                f"Every worker of {self.model!r} has as many requests as it takes, and the queue is full"
            )

    def has_room(self) -> bool:
        return bool(self._shared.free(self.model))

    def take_turn(self) -> None:
        """The call has left the line, and a worker has room."""
        self._note_wait()
        self._safely(self._go)

    def _go(self) -> None:
        assert self._asked is not None
        self._send(self._choose(self._shared.free(self.model), self._asked), self._asked)

    def _note_wait(self) -> None:
        if self.waits_since is not None:
            self.queued, self.waits_since = self._shared.upstream.loop.time() - self.waits_since, None

    def _free_behind_the_line(self) -> tuple[Worker, ...]:
        """A worker may have become ready since: whoever waits goes first."""
        self._shared.queues.serve((self.model,))
        return self._shared.free(self.model)

    def _choose(self, pool: tuple[Worker, ...], asked: Asked) -> Worker:
        if len(pool) == 1:
            return pool[0]
        shown = selection.Asked(self._request.headers, asked.fields, asked.body)
        return self._shared.selectors[self.model].choose(pool, shown, self._shared.upstream.loop.time())

    def _holder(self, response: bytes) -> Worker:
        """The worker that has a stored response. Raises ResponseNotFound."""
        worker = self._shared.holder(response)
        if self.model == UNKNOWN:
            self.model = self._shared.fleet.models_of(worker)[0]
        self._bound = True
        self._options = self._shared.models.options[self.model]
        return worker

    def _send(self, worker: Worker, asked: Asked, *, fresh: bool = False) -> None:
        upstream, request = self._shared.upstream, self._request
        target = request.path + request.query if self.route.kind is Kind.STORED else self.route.at_worker
        head = headers.request_head(
            self.route.method, target, worker.host_header, request.headers, len(asked.body), self.sent_id
        )
        if not self.attempts:
            self._shared.budget.earn()
        self.attempts += 1
        self.worker, self._lease = worker, worker.lease(streams=self.stream_is_asked)
        self.pace.heard = upstream.loop.time()
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
        self.pace.heard = self._shared.upstream.loop.time()
        self._answered, self._asked = True, None
        request.let_go()
        reading = self._reading_of(exchange)
        if request.begun and not isinstance(reading, Stream):  # with a comment: the status was 200
            self.fail(WorkerDisconnected(f"The worker answered with status {exchange.status} and no stream"))
            return
        self.status, self.stream, self.reading = exchange.status, isinstance(reading, Stream), reading
        if isinstance(reading, Opaque):
            self._begin()
            if alone:
                request.flush()

    def on_chunk(self, framed: bytes) -> None:
        """The straight way of a stream: the worker's bytes as they are, frame and all."""
        request = self._request
        if request.chunked and not self._learns and self.reading.passes(framed):
            self._note_piece()
            request.write_framed(framed)
        else:
            self.on_payload(framed[framed.index(b"\r\n") + 2 : -2])

    def on_payload(self, data: bytes) -> None:
        self._note_piece()
        if self._learns and self.worker is not None:
            self._learns = not self._shared.stored.learn(data, self.worker)
        data = self.reading.feed(data)
        if data and not self._request.begun:
            self._begin()
        self._request.write(data)

    def _note_piece(self) -> None:
        if self.pace.note(self._shared.upstream.loop.time()) and self._lease is not None:
            self._lease.note_first()

    def on_end(self) -> None:
        request, worker, rest = self._request, self.worker, self.reading.rest()
        assert worker is not None
        if not request.begun and self.reading.whole:
            self._begin(rest)
        request.write(rest if request.begun else b"")
        if not self.reading.whole:
            self._shared.fleet.failed(worker, Failure.BROKEN)
            self.fail(WorkerDisconnected("The worker ended its stream before the last event"))
            return
        if self.status < 400:
            self._shared.fleet.completed(worker)
        self._complete()

    def _complete(self) -> None:
        self.ending = "complete"
        self._release()
        self._request.end()
        self._shared.record(self)

    def _reading_of(self, exchange: Exchange) -> Reading:
        if exchange.status != 200:
            return Opaque()
        kind = headers.get(exchange.headers, b"content-type") or b""
        return reading_of(kind, self.route.ends, Edits(self._names, self._hides_usage))

    def _begin(self, whole: bytes | None = None) -> None:
        """The answer's head, with its first bytes: until then an error can still be a status. A whole document may have
        another length than the worker said, and a stream none, as comments and an error event may come into it."""
        assert self._exchange is not None
        fields = headers.response_headers(self._exchange.headers, self.id)
        if whole is not None:
            fields = headers.with_length(fields, len(whole))
        elif self.stream:
            fields = headers.without_length(fields)
        self._request.begin(self.status, fields)

    # failures, and what is done once more

    def on_failure(self, error: Exception) -> None:
        """The exchange has failed."""
        worker = self.worker
        assert worker is not None
        if isinstance(error, StaleConnection):
            self._shared.budget.spend()  # or not: without this, a harmless race would be the client's error
            self._retry(worker)
            return
        if isinstance(self.reading, Stream) and self.reading.finished:
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
        """Sends the request to another worker, once, if there is one and a retry is left."""
        asked, free = self._asked, () if self._bound else self._shared.free(self.model)
        others = tuple(worker for worker in free if worker is not self.worker)
        if not others or asked is None or self._went_elsewhere or not self._shared.budget.spend():
            return False
        self._went_elsewhere = True
        self._retry(self._choose(others, asked))
        return True

    def _retry(self, worker: Worker) -> None:
        """Over a fresh connection, which is never stale."""
        assert self._asked is not None
        place = worker.lease(streams=self.stream_is_asked)  # which nobody in the line takes meanwhile
        self._release()
        place.end()
        self._send(worker, self._asked, fresh=True)

    # the client's doings

    def on_gone(self) -> None:
        """The client has left, which frees the engine. It may leave after a stream's last event."""
        self._release()
        if isinstance(self.reading, Stream) and self.reading.finished:
            self.ending = "complete"
        else:
            self.status, self.ending = 499, "client_gone"
        self._shared.record(self)

    def pause(self) -> None:
        self.pace.paused = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        self.pace.resume(self._shared.upstream.loop.time())
        if self._exchange is not None:
            self._exchange.resume()

    # time

    def look(self, now: float) -> None:
        """Deadlines, and the comments that keep a silent stream alive."""
        if self.waits_since is not None:
            self._look_in_line(now, self.waits_since)
        elif (worker := self.worker) is not None and (
            why := self.pace.overdue(self._options.deadlines, worker.moved, now)
        ):
            self._blame(worker, now)
            self.fail(WorkerTimeout(f"A worker of {worker.slug} was too slow: {why}"))
        elif self.stream_is_asked and self.pace.is_silent(self._shared.settings.comment_s, now):
            self._comment(now)

    def _look_in_line(self, now: float, since: float) -> None:
        wait = self._options.queue.wait_s
        if now - since > wait:
            self.fail(Overloaded(f"No worker of {self.model!r} had room for the request within {wait:g} s"))
        else:
            self._shared.queues.serve((self.model,))

    def _blame(self, worker: Worker, now: float) -> None:
        """Silence counts against a worker; a long answer does not, nor one that may just have much before it."""
        if now - self.pace.started > self._options.deadlines.total_s:
            return
        if self.pace.first_byte is not None:
            self._shared.fleet.failed(worker, Failure.BROKEN)
        elif self.stream_is_asked:
            self._shared.fleet.failed(worker, Failure.FIRST_BYTE)

    def _comment(self, now: float) -> None:
        """A line that every reader of events passes over, so that nothing on the way takes the silence for an end."""
        self.pace.commented = now
        if not self._answered and not self._request.begun:
            self.stream, self.status, self.reading = True, 200, Stream(self.route.ends, Edits())
            self._request.begin(200, [*headers.STREAM, *headers.ours(self.id)])
        if isinstance(self.reading, Stream) and self.reading.between_events:
            if not self._request.begun:
                self._begin()
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
            if isinstance(self.reading, Stream) and self.reading.between_events:
                request.write(error.sse_event(self.route.dialect))
            request.break_off()
        self._shared.record(self)

    def shut(self) -> None:
        """The gateway ends."""
        self.fail(WorkerDisconnected("The gateway is shutting down"))

    def _release(self) -> None:
        """Gives back the lease or the place in the line; giving an exchange up frees the engine."""
        if self.waits_since is not None:
            self._note_wait()
            self._shared.queues.leave(self.model, self)
        decoding, self._decoding = self._decoding, None
        exchange, self._exchange = self._exchange, None
        lease, self._lease = self._lease, None
        if decoding is not None:
            decoding.cancel()
        if exchange is not None:
            exchange.cancel()
        if lease is not None:
            lease.end()
            self._shared.serve_line(self.worker)
