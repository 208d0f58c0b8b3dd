"""The port of a run that fails: it stays for one more scrape, where there has been one."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from model_cache.errors import ConfigError, RetryableError
from model_cache.telemetry import progress_server
from model_cache.telemetry.progress import Progress
from model_cache.telemetry.progress_server import serving

SOURCES = Path(__file__).parents[4] / "model-cache" / "src"
SHORT = """
import gc, os, resource
from model_cache.telemetry.progress import Progress
from model_cache.telemetry.progress_server import serving
os.close(free := os.dup(0))
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
for limit in range(free, free + 10):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    with serving(Progress("s", "o/n"), 0, print) as port:
        if port:
            print("served")
            break
gc.collect()
"""
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
    while progress.state().phase != "failed" and run.is_alive():
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


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EACCES])
def test_a_port_that_cannot_be_listened_on_is_named(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """With the setting that names another one."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(number, f"{os.strerror(number)} (while attempting to bind)")

    monkeypatch.setattr(socket, "create_server", fails)
    words = rf"^cannot listen on port 8002 \({os.strerror(number)}\); set MODEL_CACHE_PORT$"
    with pytest.raises(ConfigError, match=words), serving(Progress("s", "o/n"), 8002, list):
        pytest.fail("it has not started")


def test_without_descriptors_the_run_goes_on_without_the_port() -> None:
    """At whatever step they run out one line says so, and nothing else is printed."""
    done = subprocess.run(
        [sys.executable, "-c", SHORT], env={"PYTHONPATH": str(SOURCES)}, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert set(lines[:-1]) == {
        "nobody can ask for the progress on port 0 (Too many open files): the weights are fetched without it"
    }
    assert len(lines) > 3  # the loop has three of its own
    assert lines[-1] == "served"


def test_without_threads_the_run_goes_on_without_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its failure is told as any."""

    def fails(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    said: list[tuple[str, ...]] = []
    progress = Progress("s", "o/n")
    with suppress(RetryableError), serving(progress, 8002, lambda *words: said.append(words)) as port:
        assert port is None
        [[line]] = said
        assert line.startswith("nobody can ask for the progress on port 8002 (can't start new thread)")
        raise RetryableError("the hub is gone")
    assert said[1:] == [()]
    assert progress.state().phase == "failed"


def test_another_fault_of_the_server_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever its thread fails, nobody waits for it."""

    def fails(*_: object) -> None:
        raise ValueError("no loop")

    monkeypatch.setattr(progress_server, "Listener", fails)
    with pytest.raises(ValueError, match="no loop"), serving(Progress("s", "o/n"), 0, list):
        pytest.fail("it has not started")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_that_ends_early_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own end is what counts."""

    async def fails(*_: object) -> None:
        raise ValueError("a fault")

    before = set(threading.enumerate())
    monkeypatch.setattr(progress_server.asyncio.Event, "wait", fails)
    with serving(Progress("s", "o/n"), 0, list):
        for thread in set(threading.enumerate()) - before:  # none, if it has ended already
            thread.join(timeout=30)
        assert set(threading.enumerate()) <= before
