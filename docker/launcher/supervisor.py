"""The loop of process 1: wait for the weights, run vLLM, judge its end, and again.

- Weights missing or wrong: one line says what and the command that mends it; quiet checks follow, and vLLM
  starts by itself once it is mended.
- A configuration error: one line with vLLM's own words; then it waits, unhealthy, to be stopped.
- A crash: one line with exit code or signal and the time of the next run, which comes after the back-off.
- SIGTERM or SIGINT: passed to vLLM's main process, which gets the grace, then SIGKILL to its group.
  With no vLLM running the launcher ends at once.

Later parts that steer a run (GPU claims before a start, ending a run whose progress has stopped) belong here.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from launcher import health, process, weights
from launcher.backoff import Backoff
from launcher.classify import Kind, Verdict, classify, signal_name
from launcher.init import Init
from launcher.logs import Log
from launcher.phases import Phase
from launcher.process import Process, StartError
from launcher.progress import Progress
from launcher.settings import Settings
from launcher.weights import CancelledError, Check, File, Snapshot, WeightsError

STOPPED = 0
"""Exit code when there was nothing to stop or vLLM ended within its grace."""
KILLED = 128 + signal.SIGKILL
"""Exit code when vLLM outlived its grace."""

_RECHECK_S = 1.0
_PROBE_EVERY_S = 1.0
_PROBE_TIMEOUT_S = 1.0
_KILL_TAKES_AT_MOST_S = 5.0


class Supervisor:
    """Keeps one vLLM running until it is told to stop."""

    def __init__(
        self, settings: Settings, arguments: Sequence[str], init: Init, out: BinaryIO, err: BinaryIO
    ) -> None:
        """`arguments` end vLLM's command line; `out` and `err` take its output, `out` our log too."""
        self._settings = settings
        self._arguments = tuple(arguments)
        self._init = init
        self._streams = (out, err)
        self._log = Log(settings.slug, out)
        self._progress = Progress(self._log, settings.state_file)
        self._check = Check(self._say_hashing, lambda: init.stopping)
        self._backoff = Backoff(settings.backoff_s)

    def run(self) -> int:
        """Run until stopped; returns the exit code of the launcher."""
        while (snapshot := self._await_weights()) is not None:
            try:
                vllm = process.start(self._command(snapshot), *self._streams)
            except StartError as error:
                self._misconfigured(str(error), None)
                continue
            exit_code = self._serve(vllm)
            if exit_code is None:
                return self._stop(vllm)
            self._judge(exit_code, vllm.tail)
        return STOPPED

    def _await_weights(self) -> Snapshot | None:
        """The slug's snapshot once it is in order; None when told to stop first."""
        self._progress.begin()
        said = None
        while not self._init.stopping:
            try:
                return self._checked()
            except CancelledError:
                break
            except WeightsError as error:
                if str(error) != said:
                    said = str(error)
                    self._say_blocked(said)
            self._init.wait(_RECHECK_S)
        return None

    def _checked(self) -> Snapshot:
        snapshot = weights.find(self._settings.weights_dir, self._settings.slug)
        self._check.run(snapshot)
        return snapshot

    def _command(self, snapshot: Snapshot) -> tuple[str, ...]:
        ours = self._settings
        listen = ("--host", "0.0.0.0", "--port", str(ours.port))
        config = ("--config", str(ours.serve_config))
        return (*ours.command, str(snapshot.directory), *config, *listen, *self._arguments)

    def _serve(self, vllm: Process) -> int | None:
        """Follow vLLM until it ends; returns its exit code, None when told to stop."""
        self._progress.advance(Phase.STARTING)
        next_probe = 0.0
        while vllm.exit_code is None and not self._init.stopping:
            self._turn(vllm, _PROBE_EVERY_S if self._progress.is_starting else None)
            if self._progress.is_starting and vllm.exit_code is None and time.monotonic() >= next_probe:
                self._probe(vllm)
                next_probe = time.monotonic() + _PROBE_EVERY_S
        return None if self._init.stopping else vllm.exit_code

    def _probe(self, vllm: Process) -> None:
        if health.problem(self._settings.port, _PROBE_TIMEOUT_S) is None:
            self._observe(vllm, vllm.readers())  # what it printed before it answered comes before `ready`
            self._progress.advance(Phase.READY)

    def _turn(self, vllm: Process, seconds: float | None) -> None:
        """Wait for one thing to happen, at most `seconds`, and take note of it."""
        wake = self._init.wait(seconds, vllm.readers())
        self._observe(vllm, wake.readable)
        if vllm.pid in wake.ended:
            vllm.ended(wake.ended[vllm.pid])

    def _observe(self, vllm: Process, readable: Iterable[int]) -> None:
        for line in vllm.pump(readable):
            self._progress.observe(line)

    def _stop(self, vllm: Process) -> int:
        """Pass the stop signal on and give vLLM its grace; returns the launcher's exit code."""
        number, grace_s = self._init.stop_signal or signal.SIGTERM, self._settings.stop_grace_s
        self._progress.enter(Phase.STOPPING)
        self._log.info("stopping", signal=number.name, grace_s=grace_s)
        vllm.signal(number)
        if self._ends_within(vllm, grace_s):
            self._log.info("stopped", exit_code=vllm.exit_code)
            return STOPPED
        self._log.error("killed", grace_s=grace_s)
        vllm.kill_group()
        self._ends_within(vllm, _KILL_TAKES_AT_MOST_S)
        return KILLED

    def _ends_within(self, vllm: Process, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while vllm.exit_code is None and (left := deadline - time.monotonic()) > 0:
            self._turn(vllm, left)
        return vllm.exit_code is not None

    def _judge(self, exit_code: int, tail: Sequence[str]) -> None:
        """vLLM has ended unasked: wait for a person, or for the back-off."""
        verdict = classify(exit_code, tail, was_ready=self._progress.was_ready)
        if verdict.kind is Kind.CONFIGURATION:
            self._misconfigured(verdict.cause or f"exit code {exit_code}", exit_code)
        else:
            self._back_off(verdict, exit_code)

    def _misconfigured(self, cause: str, exit_code: int | None) -> None:
        """Say it once and wait to be stopped: only a person can mend it, by starting the container anew."""
        slug = self._settings.slug
        mend = f"docker compose up -d --build --force-recreate {slug}, with serve.yaml or the command mended"
        self._progress.enter(Phase.MISCONFIGURED, cause)
        self._log.error("configuration-error", problem=cause, mend=mend, exit_code=exit_code)
        while not self._init.stopping:
            self._init.wait(None)

    def _back_off(self, verdict: Verdict, exit_code: int) -> None:
        self._backoff = self._backoff.after_crash(self._progress.ready_s)
        delay = self._backoff.delay_s
        name = signal_name(exit_code)
        self._progress.enter(Phase.BACK_OFF, f"vLLM crashed: {name or f'exit code {exit_code}'}")
        self._log.error(
            "crash",
            exit_code=exit_code if name is None else None,
            signal=name,
            run=self._progress.run,
            retry_in_s=delay,
            cause=verdict.cause,
        )
        deadline = time.monotonic() + delay
        while not self._init.stopping and (left := deadline - time.monotonic()) > 0:
            self._init.wait(left)

    def _say_blocked(self, problem: str) -> None:
        mend = f"docker compose up {self._settings.slug}-weights"
        self._progress.blocked(f"{problem}; run: {mend}")
        self._log.error("weights-not-ready", problem=problem, mend=mend)

    def _say_hashing(self, file: File) -> None:
        self._log.info("weights-hash", file=file.path, bytes=file.stat.size)
