"""Port 8002 while the job runs: the state as JSON on /progress and as metrics on /metrics. A failed run whose metrics
were scraped waits for one more scrape, so that the failure is seen. A run that lacks the descriptors or threads for
this goes on without it: the weights matter more."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from model_cache.errors import ConfigError
from model_cache.http import listener
from model_cache.http.listener import Answer, Listener, PortError, Request, port_of, problem
from model_cache.telemetry.progress import PHASES, Progress

_LABELS = ("slug", "repo")
_LAST_SCRAPE_S = 5.0  # at most, for the scrape that shows a failure; Prometheus scrapes every two seconds
_GAUGES = {
    "bytes_done": "Bytes received (downloading) or read back (verifying) in the current phase.",
    "bytes_total": "Bytes that the current phase has to go through.",
    "files_done": "Files finished in the current phase.",
    "files_total": "Files that the current phase has to go through.",
    "rate_bytes_per_s": "Bytes a second over the last ten seconds.",
}


class ProgressCollector(Collector):
    """Reads the run's state at each scrape, so that the numbers are kept only once."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began = time.time()

    def collect(self) -> Iterator[Metric]:
        """Yield the ``model_cache_*`` metrics of this moment; prometheus_client calls it at each scrape."""
        state = self._progress.state()
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
        start.add_metric(labels, self._began)
        yield start


@contextmanager
def serving(progress: Progress, port: int, say: Callable[..., object]) -> Iterator[int | None]:
    """Answer requests until the block ends; yield the port taken, or None, after a line by *say*, where there are no
    descriptors or threads for it. *say* is `Reporter.line`: if the block fails it is called without an argument, to
    tell the state, which a scraper may ask for once more. Raises ConfigError if the port is in use or not allowed."""
    status = _Status(progress)
    running = _start(status, port, say)
    try:
        yield running.port if running else None
    except BaseException as error:
        progress.fail(str(error) or repr(error))  # an assertion may have no text
        say()
        status.await_last_scrape()
        raise
    finally:
        if running:
            running.end()


class _Running(NamedTuple):
    """The listener in its thread, with an event loop of its own; `end` stops both, from another thread."""

    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event
    port: int

    def end(self) -> None:
        """Stop the listener and wait for its thread, when `serving` ends, in the main thread."""
        with suppress(RuntimeError):  # the loop is closed: it ended of a fault, which the thread printed
            self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join()


def _start(status: "_Status", port: int, say: Callable[..., object]) -> _Running | None:
    """Start the thread; wait until it listens. Return None, after a line, without descriptors or threads.
    Raises ConfigError for the port."""
    started = Future[_Running]()
    try:
        threading.Thread(target=_serve, args=(status, port, started), daemon=True).start()
    except RuntimeError as error:
        say(_no_port_line(port, str(error)))
        return None
    try:
        return started.result()
    except PortError as error:
        raise ConfigError(f"cannot listen on port {port} ({error}); set MODEL_CACHE_PORT") from error
    except OSError as error:
        say(_no_port_line(port, error.strerror or str(error)))
        return None


def _no_port_line(port: int, problem: str) -> str:
    """Return the line that says that, and why (*problem*), the run goes on without the port."""
    return f"nobody can ask for the progress on port {port} ({problem}): the weights are fetched without it"


def _serve(status: "_Status", port: int, started: "Future[_Running]") -> None:
    """Run the listener; this is the thread. An error before it listens is passed to `_start` through *started*; a later
    one is raised, which prints it and ends the thread, not the run."""
    try:
        listener.run(lambda: _run(status, port, started))
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


async def _run(status: "_Status", port: int, started: "Future[_Running]") -> None:
    """Listen until `_Running.end` is called; *started* gets the `_Running`, once the port is listened on."""
    silent = Listener(status.answer, lambda *_: None)  # no line for each request: stdout has the progress
    server = await silent.start(port)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    started.set_result(_Running(threading.current_thread(), loop, stop, port_of(server)))
    try:
        await stop.wait()
    finally:
        await silent.stop(server)


class _Status:
    """Answers requests about the run, in the listener's thread, and knows whether its failure was scraped."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._registry = CollectorRegistry()
        self._registry.register(ProgressCollector(progress))
        self._was_scraped = False
        self._failure_scraped = threading.Event()

    def await_last_scrape(self) -> None:
        """Wait until the failure was scraped, five seconds at most, and only if the metrics were scraped before."""
        if self._was_scraped:
            self._failure_scraped.wait(_LAST_SCRAPE_S)

    async def answer(self, request: Request) -> Answer:
        """Answer /progress with the state as JSON, /metrics with the metrics, anything else with 404."""
        if request.target == "/progress":
            return Answer(200, json.dumps(asdict(self._progress.state()), ensure_ascii=False).encode())
        if request.target != "/metrics":
            return problem(404, "try /progress or /metrics")
        self._was_scraped, has_failed = True, self._progress.state().phase == "failed"
        told = self._failure_scraped.set if has_failed else _nothing
        return Answer(200, generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4, on_taken=told)


def _nothing() -> None:
    """Do nothing when a client has a scrape that tells of no failure."""
