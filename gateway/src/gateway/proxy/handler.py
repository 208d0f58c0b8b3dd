"""The hot path: one proxied request from its whole body to its last byte. Read it from top to bottom.

decode -> read the body -> look up the model -> choose a worker or queue -> send (-> retry) -> relay -> release, record

All of it runs on the event loop and never blocks: `server` and `upstream` call a method for each event. Once the
answer has begun, an error can no longer be a status: a stream gets an error event, and the connection is closed
without the body's end, so that no client takes a broken answer for a whole one."""

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
from gateway.body.reader import BodyReading, Fields, ParsedBody
from gateway.config.api_keys import ANYONE, UNLIMITED, ApiKey, Priority
from gateway.config.model_options import Options
from gateway.fleet.health import Failure
from gateway.fleet.workers import Worker
from gateway.http import headers
from gateway.http.states import STEPS, Step, changed
from gateway.proxy.account import MAX_ANSWERS, Account
from gateway.proxy.attempt import OWN_FAILURES, Attempt, failure_of
from gateway.proxy.context import Context
from gateway.proxy.record import milliseconds
from gateway.proxy.relay import Relay
from gateway.proxy.response_affinity import Search
from gateway.proxy.response_filter import Edits, ReasoningNames
from gateway.proxy.timing import Timing
from gateway.proxy.token_usage import Meter
from gateway.server.request import ClientRequest
from gateway.telemetry.audit import AuditTrail, word_of
from gateway.upstream.connection import StaleConnection

UNKNOWN: Final = "unknown"  # label in metrics and log of a model that no card declares
NOT_FOUND, UNAVAILABLE = 404, 503  # a worker has no such stored response; it takes no requests
NO_OPTIONS: Final = Options()  # until the model is known
MAX_JOINED_BYTES: Final = 1 << 20  # of a body joined on the event loop, in about 1 ms; above, in a thread
BYTES_PER_TOKEN: Final = 4  # of a body, about
UNTOLD_TOKENS: Final = 256  # of an answer whose client sets no limit
MAX_COST_TOKENS: Final = (
    32_768  # of prompt and of answer: images are long, and clients ask for more than they use
)
MAX_KEPT_BYTES: Final = 64 * 1024  # bytes of a body kept for a retry until the answer begins; more: for 1 s


class ProxyHandler:
    """Runs one request: it is the `Handler` of the client's request and the `Receiver` of the worker's answer.
    `Admission.prepare` makes it; the client's request owns it. Times are seconds of the event loop's clock. ids: the
    request's id for the client, and the worker's. key: whose request it is, set by `Admission`. status, ending, code,
    param: how it ended, for the record."""

    def __init__(
        self, context: Context, request: ClientRequest, route: Route, ids: tuple[bytes, bytes]
    ) -> None:
        self._context = context
        self._request = request
        self.step: Step = Step.NEW
        self.relay = Relay(request, route, context.affinity, ids[0])
        self._parsed: ParsedBody | None = None  # None before it is read, and once it is released
        self._options = NO_OPTIONS
        self._names = ReasoningNames.REASONING  # that the client gets
        self._started = 0.0  # when its body was complete
        self._decoding: Decoding | None = None
        self._reading: BodyReading | None = None  # only in Step.READING, between two turns
        self._attempt: Attempt | None = None
        self._search: Search | None = None  # for the worker of the stored response that it names
        self._account: Account | None = None  # only of a key with limits, once the body is read
        self._may_retry_elsewhere = True  # until it has gone to a second worker
        self._hides_usage = False  # the gateway alone asked for the stream's usage, so the client gets none
        self._cuts_usage = False  # likewise for the usage in each chunk
        self._meter: Meter | None = None  # of the usage, for a request with a key
        self.wants_stream = False
        self.id, self.sent_id = ids
        self.key: ApiKey = ANYONE
        self.client = ""  # its address, for the audit log
        self.priority = ANYONE.priority  # of the key, or lower if the client asks for that
        self.cost = 1.0  # in tokens, about; estimated when it is queued
        self.route = route
        self.timing = Timing(request.arrived)
        self.model = UNKNOWN
        self.worker: Worker | None = None  # of the last attempt
        self.waits_since: float | None = None  # since when it is in the queue, else None
        self.queued = 0.0  # seconds in the queue
        self.attempts = self.status = 0
        self.ending = "broken"  # in the log: complete, broken, refused or client_gone
        self.code: str | None = None
        self.param: str | None = None  # what the gateway's own error is about

    def _become(self, step: Step) -> None:
        """Enter `step`. Raises InvalidTransition, which means a bug, if it cannot follow the present one."""
        self.step = changed(STEPS, self.step, step)

    # to the worker

    def start(self) -> None:
        """Start the work. `ClientRequest.run` calls this once the body is complete and earlier requests are done."""
        self._safely(self._start)

    def _start(self) -> None:
        """Read a small plain body now. A thread first joins a large one and decodes a compressed one: both are slow."""
        self._started = self._context.upstream.loop.time()
        coding = content_coding.coding_of(self._request.headers)
        if coding is None and self._request.size <= MAX_JOINED_BYTES:
            self._read(self._request.body())
        else:
            self._become(Step.DECODING)
            most = self._context.settings.max_body_bytes
            self._decoding = Decoding(self._request.body_parts(), coding, most)
            self._context.offload.decode(self._decoding, self._after_decoding_turn)

    def _after_decoding_turn(self, error: BaseException | None) -> bool:
        """Go on after a turn of the decoding thread: claim what it decoded, or fail. `Offload` calls this on the event
        loop. error: what the turn raised (an Exception), or None. Return whether another turn is needed."""
        if self.step is not Step.DECODING:  # it has ended during the turn
            return False
        if isinstance(error, GatewayError):
            self.fail(error)
        elif isinstance(error, Exception):
            self.on_fault(error)
        else:
            self._safely(self._claim_and_read)
        return self.step is Step.DECODING

    def _claim_and_read(self) -> None:
        """Claim from the body budget what the last turn decoded (raises Overloaded); read the body once it is whole."""
        decoding = self._decoding
        assert decoding is not None
        self._request.claim(decoding.grown)
        if decoding.body is not None:
            self._decoding = None
            self._read(decoding.body)

    def _read(self, body: bytes) -> None:
        """Read the decoded body for what the gateway must know, a large one in turns of the loop; then `_route`."""
        if self._context.audit is not None:
            form = self.route.kind is Kind.FORM
            self._context.audit.prompt(self.id, self.sent_id, self.key, body, form=form)
        content_type = headers.get(self._request.headers, b"content-type") or b""
        reading = self._context.reader.begin(body, content_type, self.route, self.key)
        if reading.advance():
            self._route(reading.parsed())
        else:
            self._reading = reading
            self._become(Step.READING)
            self._context.turns.add(self._take_reading_turn)

    def _take_reading_turn(self) -> bool:
        """Read on for about a millisecond. `Turns` calls this until it returns False: all is read, or it is over."""
        if self.step is Step.READING:  # the request may have ended between two turns
            self._safely(self._read_on)
        return self.step is Step.READING

    def _read_on(self) -> None:
        """Do the work of `_take_reading_turn`, which catches what this raises: read on, then go on to `_route`."""
        reading = self._reading
        if reading is not None and reading.advance():
            self._reading = None
            self._route(reading.parsed())

    def _route(self, parsed: ParsedBody) -> None:
        """Go on with the body that was read: look the model up, unless the request is for a stored response, and
        reserve what it may need of its key's limits."""
        self._parsed, self._hides_usage, self._cuts_usage = parsed, parsed.hides_usage, parsed.cuts_usage
        if self.key.name:
            n = parsed.fields.get("n")
            self._meter = Meter(n if isinstance(n, int) else 1, self.route.brings_text)
        self.priority = priority_of(self.key, parsed.fields)
        self.wants_stream = parsed.stream and self.route.streams
        if self.route.kind is not Kind.STORED:
            self._look_up(parsed)
        if self.key.limits is UNLIMITED or self._reserve(parsed):
            self._find_worker(parsed)

    def _find_worker(self, parsed: ParsedBody) -> None:
        """Go on with a request that its key's limits allow. Raises GatewayError. The path of a stored response has an
        id (`or` is for mypy): the route was found by it."""
        if self.route.kind is Kind.STORED:
            self._send_to_holder(stored_id(self.route, self._request.path) or b"", None)
        else:
            self._dispatch(parsed)

    def _safely(self, step: Callable[[], None]) -> None:
        """Call `step`. If it raises, answer the client with the error; other requests are not affected. Whatever starts
        or resumes this request must come through here, but for `upstream`, which has a guard of its own."""
        try:
            step()
        except GatewayError as error:
            self.fail(error)
        except Exception as fault:  # noqa: BLE001  # the boundary of one request
            self.on_fault(fault)

    def on_fault(self, fault: Exception) -> None:
        """Log a bug of the gateway's own, which `_safely` or `Exchange.fault` caught, and answer with GatewayFault."""
        self._context.log.fault(fault, id=self.id.decode())  # and count nothing against the worker
        try:
            self.fail(GatewayFault())
        except Exception as again:  # noqa: BLE001  # the same boundary: all that is left is to close the connection
            self._context.log.fault(again, id=self.id.decode())
            self._end_anyway()

    def _look_up(self, parsed: ParsedBody) -> None:
        """Set `model`, its options, and, if a card says that it reasons, the reasoning's names for the client. Raises
        GatewayError if there is no such model for the request's key, or if it does not take the media or size."""
        cards = self._context.fleet.catalog.resolve(parsed.model)
        if not cards or not self.key.may_use(parsed.named):
            raise self._context.fleet.not_found(parsed.named, self.key)
        self.model, self._options = parsed.model, self._context.models.options[parsed.model]
        if self.route.reasons and any(card.reasons for card in cards):
            alias = parsed.alias
            self._names = ReasoningNames(alias.reasoning) if alias is not None else ReasoningNames.BOTH
        reader.check_media(parsed, cards)
        reader.check_size(parsed, self.route, cards, self._context.settings.max_text_bytes)

    def _reserve(self, parsed: ParsedBody) -> bool:
        """Reserve what the request may need of its key's limits. Return False if the Redis of several gateways is asked
        first; then `_after_asking` goes on. Raises RateLimited, QuotaExceeded or Overloaded."""
        context, shared = self._context, self._context.shared_limits
        account = Account(context.limiter, context.estimates, self.key, self.route, self.model, parsed)
        self._account = account
        if shared is not None and not account.confirm(shared, self._after_asking):
            self._become(Step.RESERVING)
            self.timing.heard = context.upstream.loop.time()  # no comment yet: it may get a status
            return False
        self._request.added += account.lines
        return True

    def _after_asking(self, error: GatewayError | None) -> None:
        """Go on, or fail: the Redis of several gateways has granted the reservation, or not. Its limiter calls this."""
        if self.step is not Step.RESERVING:  # it has ended meanwhile
            return
        if error is None:
            self._safely(self._go_on_reserved)
        else:
            self.fail(error)

    def _go_on_reserved(self) -> None:
        """Do the work of `_after_asking`, which catches what this raises."""
        assert self._account is not None
        assert self._parsed is not None
        self._request.added += self._account.lines
        self._find_worker(self._parsed)

    def _dispatch(self, parsed: ParsedBody) -> None:
        """Send to the holder of a named previous response, else to a free worker, else queue. Raises GatewayError. The
        id may hold half a surrogate pair, which no UTF-8 has: `replace`."""
        context = self._context
        if not context.fleet.pool(self.model):
            raise context.fleet.why_unavailable(self.model, parsed.named, self.key)
        previous = parsed.fields.get("previous_response_id") if self.route.stores else None
        if isinstance(previous, str):
            self._send_to_holder(previous.encode(errors="replace"), self.model)
        elif free := self._free_after_queue():
            self._send(self._choose(free, parsed))
        elif self._enter_queue(parsed):
            self._become(Step.QUEUED)
            self.waits_since = context.upstream.loop.time()
        else:
            raise QueueFull(
                f"Every worker of {parsed.named!r} has as many requests as it takes, and the queue is full"
            )

    def _enter_queue(self, parsed: ParsedBody) -> bool:
        """Append the request to the model's queue. Return False if that is full."""
        self.cost = cost_of(parsed)
        return self._context.queues.enter(self.model, self, self._options.queue.most)

    def has_room(self) -> bool:
        """Whether a worker of the model takes one more request of this one's class. `Queues.serve` asks."""
        return bool(self._context.free_workers(self.model, self.priority))

    def is_late(self) -> bool:
        """Whether more than half of the time that it may wait has passed. `Queues.serve` asks."""
        since = self.waits_since
        return (
            since is not None and self._context.upstream.loop.time() - since > self._options.queue.wait_s / 2
        )

    def give_way(self) -> None:
        """Refuse the request: the queue is full, and has given its place to another."""
        self._end_wait()
        self._safely(self._refuse_after_queue)

    def _refuse_after_queue(self) -> None:
        """Do the work of `give_way`, which answers with what this raises."""
        named = self.model if self._parsed is None else self._parsed.named
        raise QueueFull(
            f"The queue for {named!r} is full, and others in it come first: requests of a higher priority, or of "
            "keys that have fewer of them there"
        )

    def send_now(self) -> None:
        """Send the request now. The queue calls this when it has removed the request and a worker has room."""
        self._end_wait()
        self._safely(self._send_after_queue)

    def _send_after_queue(self) -> None:
        """Do the work of `send_now`, which catches what this raises: send to a worker with room (see `has_room`)."""
        assert self._parsed is not None
        self._send(self._choose(self._context.free_workers(self.model, self.priority), self._parsed))

    def _end_wait(self) -> None:
        """Record in `queued` how long the request was in the queue, if it is. Called when it leaves, sent or not."""
        if self.waits_since is not None:
            self.queued, self.waits_since = self._context.upstream.loop.time() - self.waits_since, None

    def _free_after_queue(self) -> tuple[Worker, ...]:
        """Send what is in the queue, since it came first, then return the workers that still have room."""
        self._context.queues.serve((self.model,))
        return self._context.free_workers(self.model, self.priority)

    def _choose(self, pool: tuple[Worker, ...], parsed: ParsedBody) -> Worker:
        """Return the worker of `pool` (not empty) that the model's policy picks. A pool of one needs no policy."""
        if len(pool) == 1:
            return pool[0]
        view = selection.RequestView(self._request.headers, parsed.fields, parsed.body, self.key.salt)
        return self._context.selectors[self.model].choose(pool, view, self._context.upstream.loop.time())

    def _send_to_holder(self, response_id: bytes, model: str | None) -> None:
        """Send the request to the first worker that may have the stored response. model: None for all workers.
        Raises GatewayError if no worker can be asked."""
        self._check_key_again()
        self._search = self._context.search(response_id, model, self.key)
        self._send(self._next_holder(self._search))

    def _next_holder(self, search: Search) -> Worker:
        """Return the next worker to ask for the stored response. Raises GatewayError if none is left."""
        worker = search.next()
        if self.route.kind is Kind.STORED:  # no model is named: deadlines, retry budget and log need one
            self.model = self._context.model_for(worker, search.response_id, self.key)
            self._options = self._context.models.options[self.model]
        return worker

    def _search_next(self, search: Search, why: GatewayError | None) -> None:
        """Ask the next worker for the stored response. why: the last one's error; None if it has no such response."""
        search.note_miss(why)
        self._safely(lambda: self._replace_attempt(self._next_holder(search)))

    def _send(self, worker: Worker) -> None:
        """Send the request for the first time, which earns its model a share of a retry. Further workers of a search
        are no attempts in log and metrics: only `_retry` counts."""
        self._check_key_again()
        self._context.retry_budgets[self.model].earn()
        self.attempts = 1
        self._start_attempt(worker)

    def _check_key_again(self) -> None:
        """Raise GatewayError if the request's key, which was looked up when its head came, has been revoked or expired
        since, or may no longer use the model: the body may have taken minutes, and the queue too. Once it is sent, a
        request runs to its end."""
        if self.key is ANYONE:
            return
        key, parsed = self._context.keys.renewed(self.key, self._request.headers), self._parsed
        if key is self.key:
            return
        self.key = key
        if parsed is not None and parsed.named and not key.may_use(parsed.named):
            raise self._context.fleet.not_found(parsed.named, key)

    def _start_attempt(self, worker: Worker, *, fresh: bool = False) -> None:
        """Take a lease on `worker`, and send it head and body: a first or further try. fresh: by a new connection. The
        client's query goes along only to a stored response. A worker's silence counts from now (`heard`)."""
        upstream, request, parsed = self._context.upstream, self._request, self._parsed
        assert parsed is not None
        target = request.path + request.query if self.route.kind is Kind.STORED else self.route.at_worker
        head = headers.request_head(
            self.route.method, target, worker.host_header, request.headers, parsed.size, self.sent_id,
            None if self.key is ANYONE else self.priority.at_engine(parsed.fields.get("priority")),
        )  # fmt: skip
        self._become(Step.SENT)
        self.worker, self.timing.heard = worker, upstream.loop.time()
        self._attempt = Attempt(worker, streams=self.wants_stream, priority=self.priority)
        self._attempt.send(upstream, head, parsed.parts, self, fresh=fresh)

    # the worker's answer: `upstream` calls these

    def on_head(self, *, alone: bool) -> None:
        """Begin the client's answer; or ask another worker, after a missing stored response or a 503, by which a worker
        says that it takes nothing now. 502 to 504 count against the worker, a status below 400 for it. alone: no byte
        of the answer's body has come with the head."""
        assert self._attempt is not None
        exchange, worker = self._attempt.exchange, self._attempt.worker
        if exchange.status in OWN_FAILURES:
            self._context.fleet.failed(worker, Failure.UNAVAILABLE)
            if exchange.status == UNAVAILABLE and self._retry_elsewhere():
                return
        elif exchange.status < 400:
            self._context.fleet.succeeded(worker)
        if self._search is not None and not self._ends_search(self._search, exchange.status, worker):
            return
        self.timing.heard = self._context.upstream.loop.time()
        self._become(Step.ANSWERED)
        self._release_body()
        edits = Edits(self._names, self._hides_usage, self._cuts_usage, self._meter)
        if not self.relay.open(exchange, worker, self.model, edits, alone=alone):
            self.fail(BadWorkerResponse(f"The worker answered with status {exchange.status} and no stream"))

    def _release_body(self) -> None:
        """Free the request's body, and its part of the body budget: it will not be sent again."""
        self._parsed = None
        self._request.let_go()

    def _is_body_unneeded(self) -> bool:
        """Whether a large body can be freed before the answer: all of it was sent, a second or longer ago (`is_taken`),
        so that its connection is not stale, and a search has no other worker to ask. A later 503 goes to the client."""
        parsed, attempt, search = self._parsed, self._attempt, self._search
        if parsed is None or attempt is None or parsed.size <= MAX_KEPT_BYTES:
            return False
        return attempt.exchange.is_taken and (search is None or not search.has_more)

    def _ends_search(self, search: Search, status: int, worker: Worker) -> bool:
        """Return whether the answer is for the client. After a 404, or a 503 with others left, ask the next worker. A
        good answer tells where the response is."""
        if status == NOT_FOUND:
            self._search_next(search, None)
        elif status == UNAVAILABLE and search.has_more:
            self._search_next(
                search, NoWorkerAvailable(f"A worker that may have the response {search.name} ends")
            )
        else:
            if status < 400:
                self._context.affinity.note(search.response_id, worker)
            return True
        return False

    def on_chunk(self, framed: bytes) -> None:
        """Relay one whole chunk of the answer, with its chunk frame, so that it may go to the client as it is."""
        self._note_data()
        self.relay.chunk(framed)

    def on_payload(self, data: bytes) -> None:
        """Relay a piece of the body without frame: the answer has none, or not one whole chunk came by itself."""
        self._note_data()
        self.relay.payload(data)

    def _note_data(self) -> None:
        """Note the time of a piece of the answer; the first one lowers the request's weight in the worker's load."""
        if self.timing.note(self._context.upstream.loop.time()) and self._attempt is not None:
            self._attempt.note_first_byte()

    def on_end(self) -> None:
        """Finish the request: the worker's body has ended. A stream without its last event counts as its failure."""
        worker = self.worker
        assert worker is not None
        if not self.relay.send_rest():
            self._context.fleet.failed(worker, Failure.BROKEN)
            self.fail(WorkerDisconnected("The worker ended its stream before the last event"))
            return
        if self.relay.status < 400:
            self._context.fleet.completed(worker)
        self._complete()

    def _complete(self) -> None:
        """Give back what the request holds, end the answer, of which nothing is missing, and record it as complete."""
        self._become(Step.OVER)
        self.status, self.ending = self.relay.status, "complete"
        self._release()
        self._settle()
        self.relay.close()
        self._record()

    # failures and retries

    def on_failure(self, error: Exception) -> None:
        """Send again, or end the request with `error` (StaleConnection or a GatewayError): the exchange has failed.
        After a stream's last event nothing of the answer is missing, so the request is complete."""
        worker = self.worker
        assert worker is not None
        if isinstance(error, StaleConnection):
            # Counted, but sent again even with no retry left: a stale connection is not the client's fault.
            self._context.retry_budgets[self.model].spend()
            self._retry(worker)
            return
        if self.relay.has_last_event:
            self._complete()
            return
        failure = failure_of(error, answered=self.step is Step.ANSWERED)
        if failure is not None:
            self._context.fleet.failed(worker, failure)
        assert isinstance(error, GatewayError)
        if self._search is not None and self.step is Step.SENT:
            self._search_next(self._search, error)
        elif failure is not Failure.CONNECT or not self._retry_elsewhere():  # CONNECT: it got nothing
            self.fail(error)

    def _retry_elsewhere(self) -> bool:
        """Send to another worker, at most once per request. Return False if none has room or no retry is left, or for a
        stored response, whose search asks other workers itself."""
        parsed = self._parsed
        free = () if self._search is not None else self._context.free_workers(self.model, self.priority)
        others = tuple(worker for worker in free if worker is not self.worker)
        if not others or parsed is None or not self._may_retry_elsewhere:  # None: the body is freed
            return False
        if not self._context.retry_budgets[self.model].spend():
            return False
        self._may_retry_elsewhere = False
        self._retry(self._choose(others, parsed))
        return True

    def _retry(self, worker: Worker) -> None:
        """Send the request again, as one more attempt, over a new connection, which cannot be a stale one."""
        self.attempts += 1
        self._replace_attempt(worker, fresh=True)

    def _replace_attempt(self, worker: Worker, *, fresh: bool = False) -> None:
        """End the attempt before, then send to `worker`: for a retry, and for the next worker of a search."""
        # Keeps the room from requests in the queue.
        reserved = worker.lease(streams=self.wants_stream, priority=self.priority)
        self._release()
        reserved.end()
        self._start_attempt(worker, fresh=fresh)

    # the client: `server` calls these

    def on_gone(self) -> None:
        """End the request: the client has closed its connection. That also ends the work in vLLM. After a stream's last
        event the request counts as complete."""
        self._become(Step.OVER)
        self._release()
        if self.relay.has_last_event:
            self.status, self.ending = self.relay.status, "complete"
        else:
            self.status, self.ending = 499, "client_gone"  # 499: as nginx logs it
        self._settle()
        self._record()

    def pause(self) -> None:
        """Stop reading from the worker: the client's connection has more unsent bytes than it may hold."""
        self.timing.paused = True
        if self._attempt is not None:
            self._attempt.pause()

    def resume(self) -> None:
        """Read from the worker again: the client has caught up."""
        self.timing.resume(self._context.upstream.loop.time())
        if self._attempt is not None:
            self._attempt.resume()

    # deadlines

    def check_deadlines(self, now: float) -> None:
        """Check deadlines, send a comment into a silent stream, and free a large body. The client's connection calls
        this four times a second, until the answer has ended."""
        if self.step is Step.SENT and self._is_body_unneeded():
            self._release_body()
        if self.step is Step.DECODING or self.step is Step.READING:
            self._check_reading_time(now)
        elif self.waits_since is not None:
            self._check_queue_time(now, self.waits_since)
        elif (worker := self.worker) is not None and (
            why := self.timing.overdue(self._options.deadlines, worker.moved, now)
        ):
            self._count_timeout(worker, now)
            self.fail(WorkerTimeout(f"The worker was too slow: {why}"))
        elif self.wants_stream and self.timing.is_silent(self._context.settings.comment_s, now):
            self.timing.commented = now
            self.relay.comment()

    def _check_reading_time(self, now: float) -> None:
        """Fail the request if its body was not decoded and read in time, for example behind many large ones."""
        longest = self._context.settings.body_timeout_s
        if now - self._started > longest:
            self.fail(
                Overloaded(
                    f"The request's body was not put together and read within {longest:g} s, since many large ones "
                    "came before it: send it again later"
                )
            )

    def _check_queue_time(self, now: float, since: float) -> None:
        """Fail the request if it has been in the queue for too long, else see whether a worker has room now."""
        wait, parsed = self._options.queue.wait_s, self._parsed
        if now - since > wait:
            named = self.model if parsed is None else parsed.named
            self.fail(Overloaded(f"No worker of {named!r} had room for the request within {wait:g} s"))
        else:
            self._context.queues.serve((self.model,))  # in case no event has told of a worker with room

    def _count_timeout(self, worker: Worker, now: float) -> None:
        """Count a timeout against the worker if it was silent. An answer that is only long does not count, nor silence
        before an answer that is no stream, since the worker may just have much to do before it."""
        if now - self.timing.started > self._options.deadlines.total_s:
            return
        if self.timing.first_byte is not None:
            self._context.fleet.failed(worker, Failure.BROKEN)
        elif self.wants_stream:
            self._context.fleet.failed(worker, Failure.FIRST_BYTE)

    # the end

    def fail(self, error: GatewayError) -> None:
        """End the request with `error`: as the status if no answer has begun, else as far as a stream can say it.
        `ClientRequest.run` calls this instead of `start` for a refused one. OVER already: a bug showed at its end."""
        if self.step is Step.OVER:
            self._end_anyway()
            return
        self._become(Step.OVER)
        self._release()
        self.code, self.param = error.code, error.param
        if self._request.begun:
            self._settle()
            self.status = self.relay.status  # and `ending` stays "broken"
            self.relay.break_off(error)
        else:
            self.status, self.ending = error.status, "refused"
            self._settle()
            self.relay.refuse(error)
        self._record()

    def _end_anyway(self) -> None:
        """Close the client's connection if this is over but, after a bug at its end, the client has no whole answer."""
        if not self._request.over:
            self._request.break_off()

    def end_at_shutdown(self) -> None:
        """Fail the request: the gateway shuts down, and the time for open requests (`GATEWAY_DRAIN_S`) has passed."""
        self.fail(WorkerDisconnected("The gateway is shutting down"))

    def _settle(self) -> None:
        """Settle with the key's limits, before the client is told the end: its next request may come at once."""
        if self._account is not None:
            relay = self.relay
            answered = relay.status == 200 and self.timing.first_byte is not None and not relay.is_an_error
            self._account.close(
                relay.filter.tokens, attempts=self.attempts, ending=self.ending, answered=answered
            )

    def _record(self) -> None:
        """Write the request's log line and metrics. Each way in which a request ends calls this once, last."""
        self._context.recorder.write(
            ids=(self.id, self.sent_id), key=self.key, priority=self.priority, route=self.route.name, model=self.model,
            worker=self.worker, status=self.status, ending=self.ending, code=self.code, attempts=self.attempts,
            queued=self.queued, stream=self.relay.stream, timing=self.timing, tokens=self.relay.filter.tokens,
        )  # fmt: skip
        if self._context.audit is not None:
            self._write_audit(self._context.audit)

    def _write_audit(self, audit: AuditTrail) -> None:
        """Write the request's line in the audit log. Of a model that is not declared it has the name that was sent."""
        parsed, tokens = self._parsed, self.relay.filter.tokens
        model = self.model if self.model != UNKNOWN or parsed is None else parsed.model
        prompt, completion = (None, None) if tokens is None else tokens[:2]
        audit.request(
            id=self.id.decode(), sent_id=self.sent_id.decode(), client=self.client or None,
            key=self.key.name or None, route=self.route.name, model=word_of(model),
            status=self.status, ending=self.ending, code=self.code, param=self.param and word_of(self.param),
            prompt_tokens=prompt, completion_tokens=completion,
            duration_ms=milliseconds(self._context.upstream.loop.time() - self.timing.started),
        )  # fmt: skip

    def _release(self) -> None:
        """Give back what the request holds: its place in the queue, its turn in the decoding thread, its lease on a
        worker, whose room goes to the next request in the queue. Called at the end, and before another attempt."""
        if self.waits_since is not None:
            self._end_wait()
            self._context.queues.leave(self.model, self)
        self._reading = None
        decoding, self._decoding = self._decoding, None
        attempt, self._attempt = self._attempt, None
        if decoding is not None:
            self._context.offload.forget(decoding)
        if attempt is not None:
            attempt.end()
            self._context.serve_queue(attempt.worker)


def priority_of(key: ApiKey, fields: Fields) -> Priority:
    """Return a request's class: its key's, or bulk if the client asks for OpenAI's tier for work that may wait."""
    if key is not ANYONE and fields.get("service_tier") == "flex":
        return Priority.BULK
    return key.priority


def cost_of(parsed: ParsedBody) -> float:
    """Return about how many tokens a request may come to: its prompt's, by the body's size, and those of the
    answers (`n`)."""
    answer = UNTOLD_TOKENS
    for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        told = parsed.fields.get(name)
        if isinstance(told, int):
            answer = max(0, told)
            break
    n = parsed.fields.get("n")
    answers = max(1, min(n, MAX_ANSWERS)) if isinstance(n, int) else 1
    return 1.0 + min(parsed.size // BYTES_PER_TOKEN, MAX_COST_TOKENS) + answers * min(answer, MAX_COST_TOKENS)
