"""One attempt of a request at a worker: the lease on the worker, and the exchange with it."""

from typing import Final

from gateway.api.errors import BadWorkerResponse, WorkerDisconnected, WorkerUnreachable
from gateway.config.api_keys import Priority
from gateway.fleet.health import Failure
from gateway.fleet.workers import Worker
from gateway.http.write_coalescer import Parts
from gateway.upstream.connection import Exchange, Receiver
from gateway.upstream.pool import Upstream

OWN_FAILURES: Final = (502, 503, 504)  # statuses by which a worker says that it cannot serve


class Attempt:
    """One attempt, which its request's handler owns. It holds a lease on the worker from here until `end`. streams: the
    answer will be a stream, which weighs more in the worker's load until `note_first_byte` is called."""

    def __init__(self, worker: Worker, *, streams: bool, priority: Priority) -> None:
        self.worker = worker
        self._lease = worker.lease(streams=streams, priority=priority)
        self._exchange: Exchange | None = None

    def send(self, upstream: Upstream, head: bytes, body: Parts, receiver: Receiver, *, fresh: bool) -> None:
        """Start the exchange, with whose answer `receiver` is called. Called once. fresh: over a new connection."""
        self._exchange = upstream.start(self.worker, head, body, receiver, fresh=fresh)

    @property
    def exchange(self) -> Exchange:
        """The exchange that `send` has started; not to be asked before it, or after `end`."""
        assert self._exchange is not None
        return self._exchange

    def note_first_byte(self) -> None:
        """Lower the request's weight in the worker's load: the first byte of the answer's body has come, so the prompt
        is processed. `ProxyHandler._note_data` calls it once, before `end`."""
        self._lease.note_first_byte()

    def pause(self) -> None:
        """Stop reading from the worker until `resume`, since the client is slow to read."""
        self.exchange.pause()

    def resume(self) -> None:
        self.exchange.resume()

    def end(self) -> None:
        """End the lease, and cancel the exchange if it is not over, so that vLLM stops its work for it. Called once."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()
        self._lease.end()


def failure_of(error: Exception, *, answered: bool) -> Failure | None:
    """Return what `error` counts as against the worker; None if it is not to blame. answered: its head had come."""
    if isinstance(error, WorkerUnreachable):
        return Failure.CONNECT
    if not isinstance(error, WorkerDisconnected | BadWorkerResponse):
        return None  # such as Overloaded: the gateway itself has no sockets left
    return Failure.BROKEN if answered else Failure.RESET
