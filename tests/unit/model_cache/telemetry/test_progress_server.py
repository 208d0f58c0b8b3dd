"""The port of a run that fails: it stays for one more scrape, where there has been one."""

import threading
import time
import urllib.request
from contextlib import suppress

import pytest

from model_cache.errors import ConfigError, RetryableError
from model_cache.telemetry import progress_server
from model_cache.telemetry.progress import Progress
from model_cache.telemetry.progress_server import serving

FAILED = 'model_cache_phase{phase="failed",repo="o/n",slug="s"} 1.0'


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def fail(progress: Progress, ports: list[int], asked: int) -> None:
    """A run that fails after `asked` scrapes."""
    with suppress(RetryableError), serving(progress, 0, list) as port:
        ports.append(port)
        for _ in range(asked):
            assert FAILED not in metrics(port)
        raise RetryableError("the hub is gone")


def test_a_failure_waits_for_the_scrape_that_tells_of_it() -> None:
    """Whoever has asked before is told that the run has failed, and when it began; then the port is closed."""
    ports: list[int] = []
    progress = Progress("s", "o/n")
    run = threading.Thread(target=fail, args=(progress, ports, 1))
    run.start()
    while progress.snapshot().phase != "failed" and run.is_alive():
        time.sleep(0.01)
    told = metrics(ports[0])
    run.join(timeout=30)
    assert not run.is_alive()
    assert FAILED in told
    [began] = [line for line in told.splitlines() if line.startswith("model_cache_start_time_seconds{")]
    assert 0 <= time.time() - float(began.rsplit(" ", 1)[1]) < 60
    with pytest.raises(OSError, match="refused"):
        metrics(ports[0])


def test_nobody_is_waited_for_who_never_asked() -> None:
    """A run by hand, without Prometheus, ends when it ends."""
    start = time.monotonic()
    fail(Progress("s", "o/n"), [], 0)
    assert time.monotonic() - start < 4


@pytest.mark.parametrize(
    ("fault", "told"),
    [(OSError(24, "Too many open files"), ConfigError), (ValueError("no loop"), ValueError)],
    ids=["no descriptor", "another fault"],
)
def test_a_server_that_does_not_start_is_told(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, told: type[Exception]
) -> None:
    """Wherever its thread fails, nobody waits for it."""

    def fails(*_: object) -> None:
        raise fault

    monkeypatch.setattr(progress_server, "Listener", fails)
    with pytest.raises(told), serving(Progress("s", "o/n"), 0, list):
        pytest.fail("it has not started")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_that_ends_early_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own end is what counts."""

    async def fails(*_: object) -> None:
        raise ValueError("a fault")

    before = set(threading.enumerate())
    monkeypatch.setattr(progress_server.asyncio.Event, "wait", fails)
    with serving(Progress("s", "o/n"), 0, list):
        [thread] = set(threading.enumerate()) - before
        thread.join(timeout=30)
        assert not thread.is_alive()
