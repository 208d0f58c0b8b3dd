"""The hot path: one request from its head to its last byte, read top-down.

context -> route -> card -> lease -> send (-> once more on a stale connection) -> relay -> release and log

The body's bytes are parsed once, to learn the model, and sent on untouched. Once a byte of the answer has been relayed
an error can no longer be a status: a stream gets an error event, and the body is left without its end, so that a broken
answer never looks finished.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from gateway import headers
from gateway.downstream import ClientGone, ClientRequest
from gateway.errors import (
    BadWorkerResponse,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    WorkerDisconnected,
    WorkerTimeout,
    WorkerUnreachable,
)
from gateway.fleet import Fleet
from gateway.health import Failure, is_our_limit
from gateway.keys import KeyRing
from gateway.logs import EventLog
from gateway.metrics import Metrics
from gateway.reasoning import Lines, Whole
from gateway.selection import least_in_flight
from gateway.settings import Settings
from gateway.upstream import Exchange, StaleConnection, Upstream
from gateway.workers import Worker

ROUTES = {b"/v1/chat/completions": "chat_completions", b"/v1/completions": "completions"}
REASONING_ROUTE = "chat_completions"  # the one whose answers have a field `reasoning`
END_OF_STREAM = b"data: [DONE]"
TAIL_BYTES = 32  # enough to see END_OF_STREAM and the line ends after it
UNAVAILABLE = frozenset({502, 503, 504})  # a worker's own, after which another may do better
UNKNOWN = "unknown"  # the label of a model that no card declares


@dataclass(slots=True)
class Call:
    """What is known of one request while it runs: the context of its log line and metrics."""

    route: str
    id: bytes
    started: float
    model: str = UNKNOWN
    worker: Worker | None = None
    exchange: Exchange | None = None
    attempts: int = 0
    status: int = 0
    stream: bool = False
    ending: str = "broken"
    code: str | None = None
    first_byte: float | None = None
    tail: bytes = b""
    gone: bool = False
    both_names: bool = False  # of the reasoning

    @property
    def done(self) -> bool:
        """Whether the client has all of a stream: it may leave after [DONE], before the body's end."""
        return self.stream and self.tail.rstrip().endswith(END_OF_STREAM)

    def leave(self) -> None:
        """The client has gone: ends the exchange, which frees the engine."""
        self.gone = True
        if self.exchange is not None:
            self.exchange.fail(ClientGone())


Relay = Callable[[Call, Exchange, ClientRequest], Awaitable[None]]


class Proxy:
    """Serves the proxied routes."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        upstream: Upstream,
        keys: KeyRing,
        metrics: Metrics,
        log: EventLog,
    ) -> None:
        self._settings = settings
        self._fleet = fleet
        self._upstream = upstream
        self._keys = keys
        self._metrics = metrics
        self._log = log
        self._random = random.Random()  # noqa: S311  # for ids, which must be unique, not secret
        self._turn = 0

    async def __call__(self, request: ClientRequest) -> None:
        call = Call(ROUTES[request.path], b"%032x" % self._random.getrandbits(128), time.monotonic())
        try:
            await self._serve(call, request)
            call.ending = "complete"
        except GatewayError as error:
            self._answer_error(call, error, request)
        except ClientGone:
            call.status, call.ending = (call.status, "complete") if call.done else (499, "client_gone")
        except asyncio.CancelledError:  # the server's grace is over, and the request ends here
            self._answer_error(call, WorkerDisconnected("The gateway is shutting down"), request)
        finally:
            self._finish(call)

    async def _serve(self, call: Call, request: ClientRequest) -> None:
        if request.method != b"POST":
            raise MethodNotAllowed(f"{request.path.decode()} takes POST, not {request.method.decode()}")
        self._keys.check(request.headers)
        body = await request.body(self._settings.max_body_bytes)
        model = model_of(body)
        pool = self._pool(call, model)
        request.on_gone = call.leave
        await self._forward_to_pool(call, pool, request, body)

    def _pool(self, call: Call, model: str) -> tuple[Worker, ...]:
        cards = self._fleet.catalog.resolve(model)
        call.model = model if cards else UNKNOWN
        call.both_names = call.route == REASONING_ROUTE and any(card.reasons for card in cards)
        pool = self._fleet.pool(model)
        if not pool:
            raise self._fleet.why_unavailable(model)
        return pool

    async def _forward_to_pool(
        self, call: Call, pool: tuple[Worker, ...], request: ClientRequest, body: bytes
    ) -> None:
        """Forwards to a worker of the pool. One that cannot be reached has seen nothing, so another gets one try."""
        self._turn += 1
        worker = least_in_flight(pool, self._turn)
        try:
            await self._forward(call, worker, request, body)
        except WorkerUnreachable:
            others = [other for other in pool if other is not worker]
            if not others:
                raise
            await self._forward(call, least_in_flight(others, self._turn), request, body)

    async def _forward(self, call: Call, worker: Worker, request: ClientRequest, body: bytes) -> None:
        call.worker = worker
        outgoing = headers.request_bytes(request.path, worker.host_header, request.headers, body, call.id)
        with worker.lease():
            exchange = await self._send(call, worker, outgoing)
            try:
                self._judge(worker, exchange.status)
                await relay(call, exchange, request)
                if exchange.status < 400:
                    self._fleet.completed(worker)
            except (WorkerDisconnected, BadWorkerResponse):
                self._fleet.failed(worker, Failure.BROKEN)
                raise
            finally:
                exchange.release()

    def _judge(self, worker: Worker, status: int) -> None:
        """A good answer speaks for its worker, its own 502, 503 or 504 against it, all else for nothing."""
        if status < 400:
            self._fleet.succeeded(worker)
        elif status in UNAVAILABLE:
            self._fleet.failed(worker, Failure.UNAVAILABLE)

    async def _send(self, call: Call, worker: Worker, request: bytes) -> Exchange:
        """An exchange whose head has come. A stale pooled connection is answered with one fresh attempt."""
        try:
            return await self._attempt(call, worker, request, fresh=False)
        except StaleConnection:
            self._metrics.stale_retries.inc()
            return await self._attempt(call, worker, request, fresh=True)

    async def _attempt(self, call: Call, worker: Worker, request: bytes, *, fresh: bool) -> Exchange:
        call.attempts += 1
        call.exchange = exchange = await self._start(worker, request, fresh)
        if call.gone:
            exchange.fail(ClientGone())
        limit = self._settings.first_byte_timeout_s
        deadline = self._upstream.loop.call_later(limit, time_out, exchange, worker.slug, limit)
        try:
            await exchange.head()
        except BaseException as error:
            exchange.release()
            self._count_failure(worker, error)
            raise
        finally:
            deadline.cancel()
        return exchange

    def _count_failure(self, worker: Worker, error: BaseException) -> None:
        if isinstance(error, WorkerTimeout):
            self._fleet.failed(worker, Failure.FIRST_BYTE)
        elif isinstance(error, WorkerDisconnected | BadWorkerResponse):
            self._fleet.failed(worker, Failure.RESET)

    async def _start(self, worker: Worker, request: bytes, fresh: bool) -> Exchange:
        """Sends the request. A connection that cannot be made counts against the worker."""
        try:
            return await self._upstream.start(worker, request, fresh=fresh)
        except WorkerUnreachable as error:
            if not (isinstance(error.__cause__, OSError) and is_our_limit(error.__cause__)):
                self._fleet.failed(worker, Failure.CONNECT)
            raise

    def _answer_error(self, call: Call, error: GatewayError, request: ClientRequest) -> None:
        call.code = error.code
        self._metrics.count_error(call.model, error.code)
        if request.begun:
            if call.stream and at_event_end(call.tail):
                request.write(error.sse_event())
            return
        call.status, call.ending = error.status, "refused"
        request.answer(error, *headers.ours(call.id))

    def _finish(self, call: Call) -> None:
        seconds = time.monotonic() - call.started
        self._metrics.count_request(call.model, call.route, call.status, call.ending, seconds)
        ttfb = None
        if call.first_byte is not None:
            ttfb = call.first_byte - call.started
            self._metrics.count_first_byte(call.model, call.route, ttfb)
        worker = call.worker
        self._log.request(
            self._upstream.loop, id=call.id.decode(), route=call.route, model=call.model, slug=worker and worker.slug,
            worker=worker and worker.address, status=call.status, ending=call.ending, code=call.code,
            attempts=call.attempts, stream=call.stream, ttfb_ms=ttfb and round(ttfb * 1e3, 1),
            duration_ms=round(seconds * 1e3, 1),
        )  # fmt: skip


def model_of(body: bytes) -> str:
    """The request's `model`. Raises InvalidRequest saying what is wrong with the body."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from error
    model = request.get("model") if isinstance(request, dict) else None
    if not isinstance(model, str) or not model:
        raise InvalidRequest(
            "The request body must be a JSON object with the name of a model in `model`", "model"
        )
    return model


def time_out(exchange: Exchange, slug: str, limit_s: float) -> None:
    exchange.fail(WorkerTimeout(f"A worker of {slug} sent nothing for {limit_s:g} s"))


async def relay(call: Call, exchange: Exchange, request: ClientRequest) -> None:
    """Hands the worker's answer on. Raises WorkerDisconnected for a stream that ends without [DONE]."""
    kind = headers.get(exchange.headers, b"content-type") or b""
    call.status, call.first_byte = exchange.status, time.monotonic()
    call.stream = kind.startswith(b"text/event-stream")
    request.source = exchange  # a client that does not keep up pauses it
    try:
        await way_of(call, kind)(call, exchange, request)
    finally:
        request.source = None
    if is_truncated(call):
        raise WorkerDisconnected("The worker ended its stream before the last event")
    request.end()


def way_of(call: Call, content_type: bytes) -> Relay:
    if not call.both_names or call.status != 200:
        return relay_bytes
    if call.stream:
        return relay_lines
    return relay_whole if content_type.startswith(b"application/json") else relay_bytes


async def relay_bytes(call: Call, exchange: Exchange, request: ClientRequest) -> None:
    """Hands bytes on as they come."""

    def hand_on(data: bytes) -> None:
        call.tail = data[-TAIL_BYTES:] if len(data) >= TAIL_BYTES else (call.tail + data)[-TAIL_BYTES:]
        write(data)

    write = request.write
    begin(call, exchange, request, exchange.take())
    await exchange.pour(hand_on)


async def relay_lines(call: Call, exchange: Exchange, request: ClientRequest) -> None:
    """Hands a stream on line by line, with the reasoning under both names; of a line that breaks off, nothing."""

    def hand_on(data: bytes) -> None:
        send(feed(data))

    def send(data: bytes) -> None:
        call.tail = (call.tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
        request.write(data)

    lines = Lines()
    feed = lines.feed
    begin(call, exchange, request, feed(exchange.take()))
    await exchange.pour(hand_on)
    send(lines.rest())


async def relay_whole(call: Call, exchange: Exchange, request: ClientRequest) -> None:
    """Hands an answer of JSON on once it is whole, with the reasoning under both names and the length that makes."""

    def hand_on(data: bytes) -> None:
        data = feed(data)
        if request.begun:
            request.write(data)
        elif data:
            begin(call, exchange, request, data)

    feed, head = (whole := Whole()).feed, [*exchange.headers]  # a trailer is no part of the head
    hand_on(exchange.take())
    await exchange.pour(hand_on)
    if not request.begun:
        body = whole.rest()
        exchange.headers = headers.with_length(head, len(body))
        begin(call, exchange, request, body)


def begin(call: Call, exchange: Exchange, request: ClientRequest, first: bytes) -> None:
    call.tail = first[-TAIL_BYTES:]
    request.begin(exchange.status, headers.response_headers(exchange.headers, call.id), first)


def is_truncated(call: Call) -> bool:
    return call.stream and call.status == 200 and not call.done


def at_event_end(tail: bytes) -> bool:
    """Whether an event of ours can follow; behind one that was cut in the middle the abort alone must tell."""
    return not tail or tail.endswith((b"\n\n", b"\r\n\r\n"))
