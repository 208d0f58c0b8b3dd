"""Trials without containers: this Python's own vLLM with a checkpoint, for GPU hosts without Docker, and for tests."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.gpu import recipe
from bench.gpu.rows import Row
from bench.gpu.worker import started
from bench.tune.compose_engine import rounds
from bench.tune.engine import EngineError, Load, Measured, StartError

_SAID = 5  # lines of vLLM's log that tell why it ended
_LOAD_AT_MOST_S = 6 * 3600


class HostEngine:
    """Starts vLLM on `port` with the checkpoint, as the slug's image would; logs and caches go to `folder`."""

    def __init__(
        self, slug: str, checkpoint: Path, folder: Path, gpus: int, within_s: float, port: int
    ) -> None:
        self._slug, self._checkpoint, self._folder = slug, checkpoint, folder
        self._gpus, self._within_s, self._port = gpus, within_s, port

    def check(self) -> None:
        """Raise EngineError if there is no such checkpoint, or this Python has no vLLM."""
        if not (self._checkpoint / "config.json").exists():
            raise EngineError(f"{self._checkpoint} has no config.json: it is no checkpoint")
        if importlib.util.find_spec("vllm") is None:
            raise EngineError(f"{sys.executable} cannot import vllm: run this with the Python that has it")

    def measure(self, serve_yaml: Path, load: Load) -> Measured:
        """Run one trial (`engine.Engine`)."""
        words = recipe.command(self._checkpoint, serve_yaml, self._slug, self._port)
        environment = recipe.environment(Row("", self._slug, self._gpus, ""), self._folder / "caches")
        begun = time.monotonic()
        with started(words, environment, self._folder / "vllm.log", self._port) as worker:
            outcome = worker.wait_ready(self._within_s)
            if outcome != "ready":
                last = [line for line in worker.lines if "rror" in line] or worker.lines
                raise StartError(f"{outcome}: {' | '.join(last[-_SAID:])[-600:]}")
            ready_s = time.monotonic() - begun
            return Measured(ready_s, rounds(self._load(load)))

    def _load(self, load: Load) -> "subprocess.CompletedProcess[str]":
        words = ["--model", recipe.served_names(self._slug)[0], "--tokenizer", str(self._checkpoint)]
        words += ["--way", f"direct=http://127.0.0.1:{self._port}", *load.words()]
        program = [sys.executable, str(Path(__file__).parents[1] / "serve.py")]
        with subprocess.Popen(
            [*program, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        ) as process:  # fmt: skip
            try:
                out, err = process.communicate(timeout=_LOAD_AT_MOST_S)
            except BaseException:  # interrupted, or too long: what it has started ends with it
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(program, process.returncode, out, err)
