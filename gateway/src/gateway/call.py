"""The hot path: one request from its head to its last byte, read top-down.

context -> route -> card -> lease -> send (-> once more, before the first byte) -> relay -> release and log

Nothing here waits: what comes next is called when it comes. Once a byte of the answer has been relayed an error can no
longer be a status: a stream gets an error event, and the body is left without its end, so that a broken answer never
looks finished.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway import bodies, headers
from gateway.answers import Document, Edits, Names, Opaque, Reading, Stream, Tokens
from gateway.bodies import Asked
from gateway.errors import (
    GatewayError,
    InvalidRequest,
    ResponseNotFound,
    WorkerDisconnected,
    WorkerTimeout,
    WorkerUnreachable,
)
from gateway.exchange import Exchange, StaleConnection
from gateway.fleet import Fleet
from gateway.request import ClientRequest
from gateway.retries import Budget
from gateway.routes import Kind, Route, stored_id
from gateway.selection import least_in_flight
from gateway.settings import Settings
from gateway.stored import Stored
from gateway.upstream import Upstream
from gateway.workers import Worker, WorkerState, after_failure

UNKNOWN = "unknown"  # the label of a model that no card declares
COMMENT = b": keep-alive\n\n"


@dataclass(slots=True)
class Shared:
    """What all calls use. record: is told of every call when it is over; turn: a running number."""

    settings: Settings
    fleet: Fleet
    upstream: Upstream
    budget: Budget
    record: "Callable[[Call], None]"
    stored: Stored = field(default_factory=Stored)
    turn: int = 0


class Call:
    """One request while it runs. Times are of the loop's clock, in seconds; first_byte counts from the start."""

    __slots__ = (
        "_asked", "_both_names", "_commented", "_exchange", "_heard", "_learns", "_paused", "_reading", "_request",
        "_sent", "_shared", "attempts", "code", "ending", "first_byte", "id", "model", "route", "started", "status",
        "stream", "worker",
    )  # fmt: skip

    def __init__(self, shared: Shared, request: ClientRequest, route: Route, call_id: bytes) -> None:
        self._shared = shared
        self._request = request
        self._asked: Asked | None = None
        self._exchange: Exchange | None = None
        self._reading: Reading = Opaque()
        self._both_names = False
        self._paused = False  # the client does not keep up
        self._learns = route.stores  # the answer's id
        self._sent = self._heard = self._commented = 0.0
        self.id = call_id
        self.route = route
        self.started = request.arrived
        self.model = UNKNOWN
        self.worker: Worker | None = None
        self.attempts = 0
        self.status = 0
        self.stream = False
        self.ending = "broken"
        self.code: str | None = None
        self.first_byte: float | None = None

    @property
    def tokens(self) -> Tokens | None:
        return self._reading.tokens

    # the way to the worker

    def start(self) -> None:
        """The request is whole and its turn has come."""
        try:
            asked = self._read()
            worker = self._choose(asked)
        except GatewayError as error:
            self.fail(error)
            return
        self._shared.budget.earn()
        self._send(worker, asked)

    def _read(self) -> Asked:
        request = self._request
        content_type = headers.get(request.headers, b"content-type") or b""
        self._asked = asked = bodies.read(request.body(), content_type, self.route)
        return asked

    def _choose(self, asked: Asked) -> Worker:
        if self.route.kind is Kind.STORED:
            return self._holder(stored_id(self.route, self._request.path) or b"")
        pool = self._pool(asked)
        if self.route.stores and isinstance(previous := asked.fields.get("previous_response_id"), str):
            return self._holder(previous.encode())
        return least_in_flight(pool, self._turn())

    def _holder(self, response: bytes) -> Worker:
        """The worker that has a stored response."""
        worker = self._shared.stored.worker_of(response)
        if worker is None or worker.state is not WorkerState.READY:
            raise ResponseNotFound(f"No worker has the response {response.decode('latin-1')[:100]!r}")
        self.model = self._shared.fleet.catalog.by_slug[worker.slug].names[0]
        return worker

    def _pool(self, asked: Asked) -> list[Worker]:
        fleet = self._shared.fleet
        cards = fleet.catalog.resolve(asked.model)
        if cards:
            self.model = asked.model
        self._both_names = self.route.reasons and any(card.reasons for card in cards)
        url = bodies.remote_media(asked)
        if url is not None:
            raise InvalidRequest(
                f"No worker may fetch {url[:100]!r}: send media as data: URIs, such as data:image/png;base64,..."
            )
        ready = fleet.ready_workers(cards)
        if not ready:
            raise fleet.why_unavailable(asked.model)
        return ready

    def _send(self, worker: Worker, asked: Asked, *, fresh: bool = False) -> None:
        upstream = self._shared.upstream
        target = self._request.path if self.route.kind is Kind.STORED else self.route.at_worker
        head = headers.request_head(
            self.route.method, target, worker.host_header, self._request.headers, len(asked.body), self.id
        )
        self.worker = worker
        self.attempts += 1
        worker.in_flight += 1
        self._sent = self._heard = upstream.loop.time()
        self._exchange = upstream.start(worker, head, asked.body, self, fresh=fresh)

    # the way back

    def on_head(self, *, alone: bool) -> None:
        exchange, request = self._exchange, self._request
        assert exchange is not None
        if exchange.status == 503 and self._goes_elsewhere():
            return
        self._heard = self._shared.upstream.loop.time()
        self.first_byte = self._heard - self.started
        self.status, self._reading = exchange.status, self._reading_of(exchange)
        if request.begun:  # with a comment: the status was 200, whatever the worker's is
            if exchange.status != 200 or not self.stream:
                self.fail(
                    WorkerDisconnected(f"The worker answered with status {exchange.status} and no stream")
                )
        elif not (isinstance(self._reading, Document) and self._reading.holds):
            request.begin(exchange.status, headers.response_headers(exchange.headers, self.id))
            if alone:
                request.flush()

    def on_chunk(self, framed: bytes) -> None:
        """The straight way of a stream: the worker's bytes as they are, frame and all."""
        request = self._request
        if request.chunked and self._reading.passes(framed):
            self._heard = self._shared.upstream.loop.time()
            request.write_framed(framed)
        else:
            self.on_payload(framed[framed.index(b"\r\n") + 2 : -2])

    def on_payload(self, data: bytes) -> None:
        self._heard = self._shared.upstream.loop.time()
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
        if not self._reading.whole:
            self.fail(WorkerDisconnected("The worker ended its stream before the last event"))
            return
        self.ending = "complete"
        self._release()
        request.end()
        self._shared.record(self)

    def _reading_of(self, exchange: Exchange) -> Reading:
        """What the answer is, by its head."""
        assert self._asked is not None
        kind = headers.get(exchange.headers, b"content-type") or b""
        self.stream = kind.startswith(b"text/event-stream")
        if exchange.status != 200:
            return Opaque()
        names = Names.BOTH if self._both_names else Names.REASONING
        if self.stream:
            return Stream(self.route.ends, Edits(names, self._asked.hides_usage))
        return Document(Edits(names)) if kind.startswith(b"application/json") else Opaque()

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
        if isinstance(error, WorkerUnreachable):
            worker.state = after_failure(worker, error.message, self._shared.settings.probe_fall)
            if self._goes_elsewhere():
                return
        assert isinstance(error, GatewayError)
        self.fail(error)

    def _goes_elsewhere(self) -> bool:
        """Sends the request to another worker of the pool, if there is one and a retry is left."""
        fleet = self._shared.fleet
        others = [
            other
            for other in fleet.ready_workers(fleet.catalog.resolve(self.model))
            if other is not self.worker
        ]
        if not others or not self._may_retry():
            return False
        self._retry(least_in_flight(others, self._turn()))
        return True

    def _may_retry(self) -> bool:
        return self.attempts == 1 and self._shared.budget.spend()

    def _retry(self, worker: Worker, *, fresh: bool = False) -> None:
        assert self._asked is not None
        self._release()
        self._send(worker, self._asked, fresh=fresh)

    def _turn(self) -> int:
        self._shared.turn += 1
        return self._shared.turn

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
        self._paused, self._heard = False, self._shared.upstream.loop.time()
        if self._exchange is not None:
            self._exchange.resume()

    # time

    def look(self, now: float) -> None:
        """Deadlines, and the comments that keep a silent stream alive."""
        if self._exchange is None:
            return
        error = self._overdue(now)
        if error is not None:
            self.fail(error)
        elif self._is_silent(now):
            self._comment(now)

    def _is_silent(self, now: float) -> bool:
        """Whether a stream's client has heard nothing for a while, for want of anything to say."""
        if self._asked is None or not self._asked.stream or self._paused:
            return False
        return now - max(self._heard, self._commented) > self._shared.settings.comment_s

    def _overdue(self, now: float) -> GatewayError | None:
        settings, worker = self._shared.settings, self.worker
        assert worker is not None
        if now - self.started > settings.total_timeout_s:
            return WorkerTimeout(f"The request took longer than {settings.total_timeout_s:g} s")
        limit = settings.first_byte_timeout_s if self.first_byte is None else settings.idle_timeout_s
        if now - self._heard > limit and not self._paused:
            return WorkerTimeout(f"A worker of {worker.slug} sent nothing for {limit:g} s")
        return None

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
        """Gives the lease back; an exchange that is not over is given up, which frees the engine."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()
            assert self.worker is not None
            self.worker.in_flight -= 1
