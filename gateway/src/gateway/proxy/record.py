"""Write the log line and the metrics of a request that is over. The log line goes to a queue, so nothing blocks."""

import asyncio
from typing import Final

from gateway.config.api_keys import ApiKey, Priority
from gateway.fleet.workers import Worker
from gateway.proxy.timing import Timing
from gateway.proxy.token_usage import Tokens
from gateway.telemetry.logs import EventLog
from gateway.telemetry.metrics import Metrics
from gateway.usage.ledger import Ledger

NOTHING: Final = (0, 0, 0)
NOT_MADE_NOW: Final = frozenset({"response", "response_cancel"})  # routes that tell what was used before


class Recorder:
    """Writes log lines, metrics and usage of requests; one per process. loop: its clock gave the requests' times;
    ledger: of the usage, None without a key file."""

    def __init__(
        self, metrics: Metrics, log: EventLog, loop: asyncio.AbstractEventLoop, ledger: Ledger | None = None
    ) -> None:
        self._metrics = metrics
        self._log = log
        self._loop = loop
        self._ledger = ledger

    def write(
        self,
        *,
        ids: tuple[bytes, bytes],
        key: ApiKey,
        priority: Priority,
        route: str,
        model: str,
        worker: Worker | None,
        status: int,
        ending: str,
        code: str | None,
        attempts: int,
        queued: float,
        stream: bool,
        timing: Timing,
        tokens: Tokens | None,
    ) -> None:
        """Record one request that is over; its handler calls this once. ids: the client's and the worker's; key: whose
        it was; priority: its class; ending: as the log names it; code: of the gateway's own error, or None; queued:
        seconds; stream: the answer was one."""
        seconds, first_byte = self._loop.time() - timing.started, timing.first_byte
        traffic = self._metrics.count(model, route, status, ending, seconds, first_byte)
        if stream and (gap := timing.between_pieces()) is not None:
            traffic.between_chunks.add(gap)
        prompt = completion = cached = None
        if tokens is not None:
            prompt, completion, cached = tokens
            traffic.prompt_tokens += prompt
            traffic.completion_tokens += completion
        told = NOTHING if tokens is None or route in NOT_MADE_NOW else tokens
        if key.label:
            self._metrics.count_key(key.label, model, worker is not None, told[0], told[2], told[1])
        if self._ledger is not None and key.name:
            self._ledger.add(key.name, model, worker is not None, told[0], told[2], told[1])
        if code is not None:
            self._metrics.count_error(model, code)
        if queued:
            self._metrics.count_wait(model, priority, queued)
        if attempts > 1:
            self._metrics.count_retry()
        self._log.request(
            self._loop,
            id=ids[0].decode(), sent_id=ids[1].decode(), key=key.name or None, route=route, model=model,
            slug=worker and worker.slug, worker=worker and worker.address,
            status=status, ending=ending, code=code, attempts=attempts, queue_ms=milliseconds(queued),
            stream=stream, ttfb_ms=first_byte and milliseconds(first_byte), duration_ms=milliseconds(seconds),
            prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached,
        )  # fmt: skip


def milliseconds(seconds: float) -> float:
    """Return `seconds`, not negative, in milliseconds, rounded to a tenth. It costs a third of `round`."""
    return int(seconds * 1e4 + 0.5) / 10
