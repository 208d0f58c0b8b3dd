"""One vLLM process: started, followed through its phases until it is ready, ended with all its children."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.serve import VLLM
from launcher.engine import health
from launcher.engine.phases import Phase, Timeline, phase_in

END_S, PROBE_S = 20, 2


class Worker:
    """A running vLLM. `lines`: its log so far; `timeline`: its phases, in seconds."""

    def __init__(self, process: subprocess.Popen[str], log: Path, port: int) -> None:
        self.process, self.port = process, port
        self.lines: list[str] = []
        self.timeline = Timeline(Phase.STARTING, time.monotonic())
        self._log = log
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self._log.open("w") as log:
            for line in self.process.stdout:
                log.write(line)
                self.lines.append(line.rstrip())
                if (phase := phase_in(line)) is not None:
                    self.timeline = self.timeline.advance(phase, time.monotonic())

    def wait_ready(self, within_s: float) -> str:
        """`ready`, `hung` after so many seconds, or `exited <code>`."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self._reader.join(5)
                return f"exited {self.process.returncode}"
            if health.check(self.port, PROBE_S) is None:
                self.timeline = self.timeline.advance(Phase.READY, time.monotonic())
                return "ready"
            time.sleep(0.2)
        return "hung"

    def end(self) -> None:
        """SIGTERM to the whole session, SIGKILL to what is left: no GPU memory stays taken."""
        for kind, patience_s in ((signal.SIGTERM, END_S), (signal.SIGKILL, END_S)):
            try:
                os.killpg(self.process.pid, kind)
                self.process.wait(patience_s)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def started(words: Sequence[str], environment: Mapping[str, str], log: Path, port: int) -> Iterator[Worker]:
    """vLLM in a session of its own, ended with the block."""
    process = subprocess.Popen(
        [*VLLM, *words], env=os.environ | environment, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    worker = Worker(process, log, port)
    try:
        yield worker
    finally:
        worker.end()
