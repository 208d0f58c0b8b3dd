"""Port 8002 while the job runs: the state as JSON on /progress and as metrics on /metrics.

A run that fails waits until whoever has been asking for its metrics has asked once more, so that the failure is known.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from model_cache.errors import ConfigError
from model_cache.progress import PHASES, Progress

_LABELS = ("slug", "repo")
_LAST_SCRAPE_S = 5.0  # at most, for the scrape that tells of a failure; Prometheus asks every two seconds
_GAUGES = {
    "bytes_done": "Bytes received (downloading) or read back (verifying) in the current phase.",
    "bytes_total": "Bytes that the current phase has to go through.",
    "files_done": "Files finished in the current phase.",
    "files_total": "Files that the current phase has to go through.",
    "rate_bytes_per_s": "Bytes a second over the last ten seconds.",
}


class ProgressCollector(Collector):
    """Reads the run's state at each scrape, so that the numbers exist once."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._started = time.time()

    def collect(self) -> Iterator[Metric]:
        """The ``model_cache_*`` metrics of this moment."""
        state = self._progress.snapshot()
        labels = (state.slug, state.repo)
        for field, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"model_cache_{field}", text, labels=_LABELS)
            gauge.add_metric(labels, getattr(state, field))
            yield gauge
        retries = CounterMetricFamily("model_cache_retries", "Tries after a failure.", labels=_LABELS)
        retries.add_metric(labels, state.retries)
        yield retries
        phase = GaugeMetricFamily("model_cache_phase", "1 for the run's phase.", labels=(*_LABELS, "phase"))
        for name in PHASES:
            phase.add_metric((*labels, name), float(name == state.phase))
        yield phase
        start = GaugeMetricFamily("model_cache_start_time_seconds", "When the run began.", labels=_LABELS)
        start.add_metric(labels, self._started)
        yield start


@contextmanager
def serving(progress: Progress, port: int, on_failure: Callable[[], object]) -> Iterator[int]:
    """Answer requests until the block ends; yields the port taken. If it fails, *on_failure* is called, and the failure
    can be asked for a little longer.

    Raises ConfigError when the port is in use.
    """
    try:
        server = _Server(("0.0.0.0", port), _handler(progress))
    except OSError as error:
        raise ConfigError(f"cannot listen on port {port} ({error.strerror}); set MODEL_CACHE_PORT") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    except BaseException as error:
        progress.fail(str(error) or repr(error))
        on_failure()
        server.await_last_scrape()
        raise
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingTCPServer):
    # not http.server's own, which looks up the host's name and waits for a DNS server that may not answer
    allow_reuse_address = True
    daemon_threads = True
    is_watched = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.failure_told = threading.Event()

    def await_last_scrape(self) -> None:
        """Until the failure has been asked for; nobody is waited for who has not asked for metrics before."""
        if self.is_watched:
            self.failure_told.wait(_LAST_SCRAPE_S)


def _handler(progress: Progress) -> type[BaseHTTPRequestHandler]:
    registry = CollectorRegistry()
    registry.register(ProgressCollector(progress))

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds a silent client may hold its thread
        server: _Server

        def do_GET(self) -> None:
            if self.path == "/progress":
                body = json.dumps(asdict(progress.snapshot()), ensure_ascii=False).encode()
                self._answer("application/json", body)
            elif self.path == "/metrics":
                self.server.is_watched, has_failed = True, progress.snapshot().phase == "failed"
                self._answer(CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))
                if has_failed:
                    self.server.failure_told.set()
            else:
                self.send_error(404, "try /progress or /metrics")

        def _answer(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent: stdout carries the progress lines."""

    return Handler
