"""The hot path: one request from its head to its last byte, read top-down.

context -> route -> card -> lease -> send (-> once more, before the first byte) -> relay -> release and log

Nothing here waits: what comes next is called when it comes. Once a byte of the answer is out, an error can be no
status: a stream gets an error event, and the body is left without its end: no broken answer looks finished.
"""

from collections.abc import Callable
from typing import Final

from gateway.api.errors import (
    BadWorkerResponse,
    GatewayError,
    GatewayFault,
    NoWorkerAvailable,
    Overloaded,
    QueueFull,
    WorkerDisconnected,
    WorkerTimeout,
)
from gateway.api.routes import Kind, Route, stored_id
from gateway.balancing import selection
from gateway.body import content_coding, reader
from gateway.body.content_coding import Decoding
from gateway.body.reader import BodyReading, ParsedBody
from gateway.config.model_options import Options
from gateway.fleet.health import Failure
from gateway.fleet.workers import Worker
from gateway.http import headers
from gateway.http.states import STEPS, Step, changed
from gateway.proxy.attempt import OWN_FAILURES, Attempt, failure_of
from gateway.proxy.context import Context
from gateway.proxy.relay import Relay
from gateway.proxy.response_affinity import Search
from gateway.proxy.response_filter import Edits, Names
from gateway.proxy.timing import Timing
from gateway.server.request import ClientRequest
from gateway.upstream.connection import StaleConnection

UNKNOWN: Final = "unknown"  # the label of a model that no card declares
NOT_FOUND, UNAVAILABLE = 404, 503
NO_OPTIONS: Final = Options()
JOINED_AT_ONCE: Final = 1 << 20  # bytes of a body; a larger one is put together in a thread
KEPT_BYTES: Final = 64 * 1024  # of a body that is kept for a retry however long its worker is silent


class ProxyHandler:
    """One request while it runs. Times are of the loop's clock, in seconds."""

    def __init__(
        self, context: Context, request: ClientRequest, route: Route, ids: tuple[bytes, bytes]
    ) -> None:
        self._context = context
        self._request = request
        self.step: Step = Step.NEW
        self.relay = Relay(request, route, context.affinity, ids[0])
        self._parsed: ParsedBody | None = None  # until a head has come, or a large body is let go
        self._options = NO_OPTIONS
        self._names = Names.REASONING
        self._started = 0.0  # when its body was whole
        self._decoding: Decoding | None = None
        self._reading: BodyReading | None = None  # the body, while it is read
        self._attempt: Attempt | None = None
        self._search: Search | None = None  # for the stored response that it names
        self._may_go_elsewhere = True  # once
        self._hides_usage = self.wants_stream = False
        self.id, self.sent_id = ids
        self.route = route
        self.timing = Timing(request.arrived)
        self.model = UNKNOWN
        self.worker: Worker | None = None
        self.waits_since: float | None = None  # in the queue
        self.queued = 0.0  # seconds
        self.attempts = self.status = 0
        self.ending = "broken"
        self.code: str | None = None

    def _become(self, step: Step) -> None:
        self.step = changed(STEPS, self.step, step)

    # the way to the worker

    def start(self) -> None:
        """The request is whole and its turn has come."""
        self._safely(self._start)

    def _start(self) -> None:
        self._started = self._context.upstream.loop.time()
        coding = content_coding.coding_of(self._request.headers)
        if coding is None and self._request.size <= JOINED_AT_ONCE:
            self._read(self._request.body())
        else:
            self._become(Step.DECODING)
            most = self._context.settings.max_body_bytes
            self._decoding = Decoding(self._request.body_parts(), coding, most)
            self._context.offload.decode(self._decoding, self._take_decoding_turn)

    def _take_decoding_turn(self, error: BaseException | None) -> bool:
        """A part is decoded, or cannot be; returns whether there is more to decode."""
        if self.step is not Step.DECODING:
            return False
        if isinstance(error, GatewayError):
            self.fail(error)
        elif isinstance(error, Exception):
            self.on_fault(error)
        else:
            self._safely(self._decode_on)
        return self.step is Step.DECODING

    def _decode_on(self) -> None:
        decoding = self._decoding
        assert decoding is not None
        self._request.claim(decoding.grown)
        if decoding.body is not None:
            self._decoding = None
            self._read(decoding.body)

    def _read(self, body: bytes) -> None:
        """At once if it is small."""
        content_type = headers.get(self._request.headers, b"content-type") or b""
        reading = self._context.reader.begin(body, content_type, self.route)
        if reading.advance():
            self._route(reading.parsed())
        else:
            self._reading = reading
            self._become(Step.READING)
            self._context.turns.take(self._take_reading_turn)

    def _take_reading_turn(self) -> bool:
        """Whether there is more to read."""
        if self.step is Step.READING:
            self._safely(self._read_on)
        return self.step is Step.READING and self._reading is not None

    def _read_on(self) -> None:
        reading = self._reading
        if reading is not None and reading.advance():
            self._reading = None
            self._route(reading.parsed())

    def _route(self, parsed: ParsedBody) -> None:
        self._parsed, self._hides_usage = parsed, parsed.hides_usage
        self.wants_stream = parsed.stream and self.route.streams
        if self.route.kind is Kind.STORED:
            self._look_for(stored_id(self.route, self._request.path) or b"", None)
        else:
            self._look_up(parsed)
            self._dispatch(parsed)

    def _safely(self, step: Callable[[], None]) -> None:
        """An error, and any fault of the gateway's own, ends this request and no other."""
        try:
            step()
        except GatewayError as error:
            self.fail(error)
        except Exception as fault:  # noqa: BLE001  # the boundary of one request
            self.on_fault(fault)

    def on_fault(self, fault: Exception) -> None:
        """The gateway itself has failed at this request: no worker is to blame, and the client is told what can be."""
        self._context.log.fault(fault, id=self.id.decode())
        try:
            self.fail(GatewayFault())
        except Exception as again:  # noqa: BLE001  # the same boundary: what is left to do is to end the connection
            self._context.log.fault(again, id=self.id.decode())
            self._end_anyway()

    def _look_up(self, parsed: ParsedBody) -> None:
        """What is declared of the model."""
        cards = self._context.fleet.catalog.resolve(parsed.model)
        if not cards:
            raise self._context.fleet.why_unavailable(parsed.model)
        self.model, self._options = parsed.model, self._context.models.options[parsed.model]
        if self.route.reasons and any(card.reasons for card in cards):
            self._names = Names(parsed.alias.reasoning) if parsed.alias is not None else Names.BOTH
        reader.check_media(parsed, cards)
        reader.check_size(parsed, self.route, cards, self._context.settings.max_text_bytes)

    def _dispatch(self, parsed: ParsedBody) -> None:
        """Sends the request to a worker, or puts it in line for one. Raises GatewayError."""
        context = self._context
        if not context.fleet.pool(self.model):
            raise context.fleet.why_unavailable(self.model)
        previous = parsed.fields.get("previous_response_id") if self.route.stores else None
        if isinstance(previous, str):
            self._look_for(previous.encode(errors="replace"), self.model)
        elif free := self._free_after_queue():
            self._send(self._choose(free, parsed))
        elif context.queues.enter(self.model, self, self._options.queue.most):
            self._become(Step.QUEUED)
            self.waits_since = context.upstream.loop.time()
        else:
            raise QueueFull(
                f"Every worker of {self.model!r} has as many requests as it takes, and the queue is full"
            )

    def has_room(self) -> bool:
        return bool(self._context.free(self.model))

    def take_turn(self) -> None:
        """The request has left the queue, and a worker has room."""
        self._note_wait()
        self._safely(self._go)

    def _go(self) -> None:
        assert self._parsed is not None
        self._send(self._choose(self._context.free(self.model), self._parsed))

    def _note_wait(self) -> None:
        if self.waits_since is not None:
            self.queued, self.waits_since = self._context.upstream.loop.time() - self.waits_since, None

    def _free_after_queue(self) -> tuple[Worker, ...]:
        """A worker may have become ready since: whoever waits goes first."""
        self._context.queues.serve((self.model,))
        return self._context.free(self.model)

    def _choose(self, pool: tuple[Worker, ...], parsed: ParsedBody) -> Worker:
        if len(pool) == 1:
            return pool[0]
        view = selection.RequestView(self._request.headers, parsed.fields, parsed.body)
        return self._context.selectors[self.model].choose(pool, view, self._context.upstream.loop.time())

    def _look_for(self, response: bytes, model: str | None) -> None:
        """Sends the request to the worker that has a stored response. Raises GatewayError."""
        self._search = self._context.search(response, model)
        self._send(self._searched(self._search))

    def _searched(self, search: Search) -> Worker:
        """Whom to ask next. Raises GatewayError."""
        worker = search.next()
        if self.route.kind is Kind.STORED:
            self.model = self._context.fleet.models_of(worker)[0]
            self._options = self._context.models.options[self.model]
        return worker

    def _search_on(self, search: Search, why: GatewayError | None) -> None:
        """Who was asked has it not, or could not be asked: the next one is."""
        search.missed(why)
        self._safely(lambda: self._move(self._searched(search)))

    def _send(self, worker: Worker) -> None:
        """For the first time."""
        self._context.retry_budgets[self.model].earn()
        self.attempts = 1
        self._ask(worker)

    def _ask(self, worker: Worker, *, fresh: bool = False) -> None:
        upstream, request, parsed = self._context.upstream, self._request, self._parsed
        assert parsed is not None
        target = request.path + request.query if self.route.kind is Kind.STORED else self.route.at_worker
        head = headers.request_head(
            self.route.method, target, worker.host_header, request.headers, parsed.size, self.sent_id
        )
        self._become(Step.SENT)
        self.worker, self.timing.heard = worker, upstream.loop.time()
        self._attempt = Attempt(worker, streams=self.wants_stream)
        self._attempt.send(upstream, head, parsed.parts, self, fresh=fresh)

    # the way back

    def on_head(self, *, alone: bool) -> None:
        assert self._attempt is not None
        exchange, worker = self._attempt.exchange, self._attempt.worker
        if exchange.status in OWN_FAILURES:
            self._context.fleet.failed(worker, Failure.UNAVAILABLE)
            if exchange.status == UNAVAILABLE and self._goes_elsewhere():
                return
        elif exchange.status < 400:
            self._context.fleet.succeeded(worker)
        if self._search is not None and not self._is_found(self._search, exchange.status, worker):
            return
        self.timing.heard = self._context.upstream.loop.time()
        self._become(Step.ANSWERED)
        self._let_body_go()
        if not self.relay.open(exchange, worker, Edits(self._names, self._hides_usage), alone=alone):
            self.fail(BadWorkerResponse(f"The worker answered with status {exchange.status} and no stream"))

    def _let_body_go(self) -> None:
        """It will not be sent again."""
        self._parsed = None
        self._request.let_go()

    def _is_body_done(self) -> bool:
        """Whether a worker has taken a large body and keeps it: one that refuses a request does so at once, and nobody
        else need be asked."""
        parsed, attempt, search = self._parsed, self._attempt, self._search
        if parsed is None or attempt is None or parsed.size <= KEPT_BYTES:
            return False
        return attempt.exchange.is_taken and (search is None or not search.has_more)

    def _is_found(self, search: Search, status: int, worker: Worker) -> bool:
        """Whether the worker that was asked has the stored response; else the next one is asked."""
        if status == NOT_FOUND:
            self._search_on(search, None)
        elif status == UNAVAILABLE and search.has_more:
            self._search_on(
                search, NoWorkerAvailable(f"A worker that may have the response {search.name} ends")
            )
        else:
            if status < 400:
                self._context.affinity.note(search.response, worker)
            return True
        return False

    def on_chunk(self, framed: bytes) -> None:
        self._note_piece()
        self.relay.chunk(framed)

    def on_payload(self, data: bytes) -> None:
        self._note_piece()
        self.relay.payload(data)

    def _note_piece(self) -> None:
        if self.timing.note(self._context.upstream.loop.time()) and self._attempt is not None:
            self._attempt.note_first()

    def on_end(self) -> None:
        worker = self.worker
        assert worker is not None
        if not self.relay.rest():
            self._context.fleet.failed(worker, Failure.BROKEN)
            self.fail(WorkerDisconnected("The worker ended its stream before the last event"))
            return
        if self.relay.status < 400:
            self._context.fleet.completed(worker)
        self._complete()

    def _complete(self) -> None:
        self._become(Step.OVER)
        self.status, self.ending = self.relay.status, "complete"
        self._release()
        self.relay.close()
        self._record()

    # failures, and what is done once more

    def on_failure(self, error: Exception) -> None:
        """The exchange has failed."""
        worker = self.worker
        assert worker is not None
        if isinstance(error, StaleConnection):
            # Counted, but sent again even with no retry left: a stale connection is not the client's fault.
            self._context.retry_budgets[self.model].spend()
            self._retry(worker)
            return
        if self.relay.is_told:
            self._complete()
            return
        failure = failure_of(error, answered=self.step is Step.ANSWERED)
        if failure is not None:
            self._context.fleet.failed(worker, failure)
        assert isinstance(error, GatewayError)
        if self._search is not None and self.step is Step.SENT:
            self._search_on(self._search, error)
        elif failure is not Failure.CONNECT or not self._goes_elsewhere():
            self.fail(error)

    def _goes_elsewhere(self) -> bool:
        """Sends the request to another worker, once, if there is one and a retry is left."""
        parsed, free = self._parsed, () if self._search is not None else self._context.free(self.model)
        others = tuple(worker for worker in free if worker is not self.worker)
        if not others or parsed is None or not self._may_go_elsewhere:
            return False
        if not self._context.retry_budgets[self.model].spend():
            return False
        self._may_go_elsewhere = False
        self._retry(self._choose(others, parsed))
        return True

    def _retry(self, worker: Worker) -> None:
        """Over a fresh connection, which is never stale."""
        self.attempts += 1
        self._move(worker, fresh=True)

    def _move(self, worker: Worker, *, fresh: bool = False) -> None:
        place = worker.lease(streams=self.wants_stream)  # which nobody in the line takes meanwhile
        self._release()
        place.end()
        self._ask(worker, fresh=fresh)

    # the client's doings

    def on_gone(self) -> None:
        """The client has left, which frees the engine. It may leave after a stream's last event."""
        self._become(Step.OVER)
        self._release()
        if self.relay.is_told:
            self.status, self.ending = self.relay.status, "complete"
        else:
            self.status, self.ending = 499, "client_gone"
        self._record()

    def pause(self) -> None:
        self.timing.paused = True
        if self._attempt is not None:
            self._attempt.pause()

    def resume(self) -> None:
        self.timing.resume(self._context.upstream.loop.time())
        if self._attempt is not None:
            self._attempt.resume()

    # time

    def look(self, now: float) -> None:
        """Deadlines, the comments that keep a silent stream alive, and a body that is needed no more."""
        if self.step is Step.SENT and self._is_body_done():
            self._let_body_go()
        if self.step is Step.DECODING or self.step is Step.READING:
            self._check_reading_time(now)
        elif self.waits_since is not None:
            self._check_queue_time(now, self.waits_since)
        elif (worker := self.worker) is not None and (
            why := self.timing.overdue(self._options.deadlines, worker.moved, now)
        ):
            self._blame(worker, now)
            self.fail(WorkerTimeout(f"A worker of {worker.slug} was too slow: {why}"))
        elif self.wants_stream and self.timing.is_silent(self._context.settings.comment_s, now):
            self.timing.commented = now
            self.relay.comment()

    def _check_reading_time(self, now: float) -> None:
        """Its body may take long to decode and to read, or those of many others do that came before."""
        longest = self._context.settings.body_timeout_s
        if now - self._started > longest:
            self.fail(
                Overloaded(
                    f"The request's body was not put together and read within {longest:g} s, since many large ones "
                    "came before it: send it again later"
                )
            )

    def _check_queue_time(self, now: float, since: float) -> None:
        wait = self._options.queue.wait_s
        if now - since > wait:
            self.fail(Overloaded(f"No worker of {self.model!r} had room for the request within {wait:g} s"))
        else:
            self._context.queues.serve((self.model,))

    def _blame(self, worker: Worker, now: float) -> None:
        """Silence counts against a worker; a long answer does not, nor one that may just have much before it."""
        if now - self.timing.started > self._options.deadlines.total_s:
            return
        if self.timing.first_byte is not None:
            self._context.fleet.failed(worker, Failure.BROKEN)
        elif self.wants_stream:
            self._context.fleet.failed(worker, Failure.FIRST_BYTE)

    # the end

    def fail(self, error: GatewayError) -> None:
        """Tells the client, as far as it can still be told."""
        if self.step is Step.OVER:
            self._end_anyway()
            return
        self._become(Step.OVER)
        self._release()
        self.code = error.code
        if self._request.begun:
            self.status = self.relay.status
            self.relay.break_off(error)
        else:
            self.status, self.ending = error.status, "refused"
            self.relay.refuse(error)
        self._record()

    def _end_anyway(self) -> None:
        """A fault in the midst of its end may have kept the client from being told."""
        if not self._request.over:
            self._request.break_off()

    def shut(self) -> None:
        """The gateway ends."""
        self.fail(WorkerDisconnected("The gateway is shutting down"))

    def _record(self) -> None:
        self._context.recorder.write(
            ids=(self.id, self.sent_id),
            route=self.route.name,
            model=self.model,
            worker=self.worker,
            status=self.status,
            ending=self.ending,
            code=self.code,
            attempts=self.attempts,
            queued=self.queued,
            stream=self.relay.stream,
            timing=self.timing,
            tokens=self.relay.reading.tokens,
        )

    def _release(self) -> None:
        """Gives back what it holds: a place in the line, a turn of the thread that decodes, a worker."""
        if self.waits_since is not None:
            self._note_wait()
            self._context.queues.leave(self.model, self)
        self._reading = None
        decoding, self._decoding = self._decoding, None
        attempt, self._attempt = self._attempt, None
        if decoding is not None:
            self._context.offload.forget(decoding)
        if attempt is not None:
            attempt.end()
            self._context.serve_queue(attempt.worker)
