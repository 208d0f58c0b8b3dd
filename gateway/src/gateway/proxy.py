"""What all calls share: the parts they use, and what is written down of each when it ends."""

import random

from gateway.call import Call
from gateway.codings import coding_of
from gateway.errors import GatewayError, MethodNotAllowed
from gateway.fleet import Fleet
from gateway.ids import ids_of
from gateway.keys import KeyRing
from gateway.logs import EventLog
from gateway.metrics import Metrics
from gateway.models import Models
from gateway.queues import Queues
from gateway.request import ClientRequest
from gateway.routes import Route
from gateway.settings import Settings
from gateway.shared import Shared
from gateway.upstream import Upstream


class Proxy:
    """Makes a call of every request for a proxied route."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        models: Models,
        upstream: Upstream,
        keys: KeyRing,
        metrics: Metrics,
        log: EventLog,
        queues: Queues,
    ) -> None:
        self._keys = keys
        self._metrics = metrics
        self._log = log
        self._upstream = upstream
        self._random = random.Random()  # noqa: S311  # for ids, which must be unique, not secret
        self._shared = Shared(settings, fleet, models, upstream, self._random, self._record, queues, log)

    def prepare(self, request: ClientRequest, route: Route) -> None:
        """Gives a request whose head has come its call, and refuses it if the head is enough for that."""
        request.limit = self._shared.settings.max_body_bytes
        ids = ids_of(request.headers, b"%032x" % self._random.getrandbits(128))
        request.handler = Call(self._shared, request, route, ids)
        try:
            check_method(request, route)
            self._keys.check(request.headers)
            coding_of(request.headers)
        except GatewayError as error:
            request.refusal = error.with_traceback(None)  # which knows the request: a circle

    def _record(self, call: Call) -> None:
        """One log line, and the metrics."""
        seconds = self._upstream.loop.time() - call.pace.started
        ttfb, worker, tokens = call.pace.first_byte, call.worker, call.relay.reading.tokens
        traffic = self._metrics.count(call.model, call.route.name, call.status, call.ending, seconds, ttfb)
        if call.relay.stream and (gap := call.pace.between_pieces()) is not None:
            traffic.between_chunks.add(gap)
        if tokens is not None:
            traffic.prompt_tokens += tokens.prompt
            traffic.completion_tokens += tokens.completion
        if call.code is not None:
            self._metrics.count_error(call.model, call.code)
        if call.attempts > 1:
            self._metrics.count_retry()
        self._log.request(
            self._upstream.loop, id=call.id.decode(), sent_id=call.sent_id.decode(), route=call.route.name,
            model=call.model, slug=worker and worker.slug, worker=worker and worker.address,
            status=call.status, ending=call.ending, code=call.code, attempts=call.attempts,
            queue_ms=round(call.queued * 1e3, 1), stream=call.relay.stream, ttfb_ms=ttfb and round(ttfb * 1e3, 1),
            duration_ms=round(seconds * 1e3, 1), prompt_tokens=tokens and tokens.prompt,
            completion_tokens=tokens and tokens.completion,
        )  # fmt: skip


def check_method(request: ClientRequest, route: Route) -> None:
    """Raises MethodNotAllowed."""
    if request.method != route.method:
        path, given = request.path.decode("latin-1"), request.method.decode("latin-1")
        raise MethodNotAllowed(f"{path} takes {route.method.decode()}, not {given}", route.method.decode())
