"""The main loop of process 1: wait for weights and GPUs, run vLLM, decide why it ended, and start again.

Runs in the main thread, which waits only in `Init.wait`; what may block for long runs in other threads (`background`).

- Weights missing or wrong: logged once, with the command that repairs them. They are checked again every second.
- GPUs held by other workers: logged once, with who holds which. The claim is repeated every second. GPUs once claimed
  are kept across all crashes of vLLM until the launcher ends or a configuration error is found.
- A configuration error: logged in vLLM's own words. The launcher waits, unhealthy and without GPUs, to be stopped.
- A crash: logged with exit code or signal and the time of the next run, which comes after the back-off.
- A standstill (`stall_detector`): logged with what has not moved and for how long. vLLM is ended, by SIGKILL if need
  be, and started again as after a crash.
- Before clients' requests are admitted (`admission`), vLLM is warmed up for a bounded time (`warming`). If it ends by
  itself meanwhile, it is a crash. If requests are unanswered when the time is up and nothing moves, it is a standstill.
  After either, later runs are not warmed up, unless it was a standstill without one answer (`_give_up_warm_up`).
- SIGTERM or SIGINT: new requests are refused from then on (`admission`). A moment later (at once if vLLM was not ready)
  the signal goes to vLLM's main process, which gets the rest of the grace period, and then SIGKILL goes to all its
  processes. With no vLLM running the launcher ends at once."""

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from launcher.engine import admission, health
from launcher.engine.command import command_line
from launcher.engine.phases import Phase
from launcher.engine.warming import Warming, plan
from launcher.engine.watch import Watch
from launcher.process import background, process
from launcher.process.backoff import Backoff
from launcher.process.classify import Kind, Verdict, classify, signal_name
from launcher.process.init import CancelledError, Init
from launcher.process.outlet import Sink
from launcher.process.process import Process, StartError
from launcher.resources import gpus, weights
from launcher.resources.gpu_locks import BusyError, GpuLocks
from launcher.resources.gpus import GPU, GpusError
from launcher.resources.snapshot_lock import SnapshotLock
from launcher.resources.weights import Check, CorruptError, File, Snapshot, WeightsError
from launcher.settings import Settings
from launcher.status import ops
from launcher.status.logs import Log
from launcher.status.progress import Progress
from launcher.status.state import Trouble

# the launcher's exit codes, after a stop signal
STOPPED = 0  # no vLLM was running, or it ended within its grace period
KILLED = 128 + signal.SIGKILL  # vLLM had to be killed after its grace period
_RECHECK_S = 1.0  # between two tries to get weights or GPU locks
_KILL_S = 5.0  # longest wait for vLLM to end after SIGKILL; a process that hangs in the driver does not end
_TO_ENGINE_S = 2.0  # within which an admitted request passes from vLLM's API server to its engine
_HANG_GRACE_S = 2.0  # from SIGTERM to SIGKILL for a vLLM that stands still; it may log a last line
_AFTER_CHANGES = "with serve.yaml or the command mended"  # end of the advice after a configuration error
_ENDED = {Kind.CRASH: "crashed", Kind.HANG: "hung"}  # what vLLM did, for the state file
_TROUBLES = {Kind.CRASH: Trouble.CRASH, Kind.HANG: Trouble.HANG}
_Found = TypeVar("_Found")


class Supervisor:
    """Keeps one vLLM running until a stop signal arrives. `main` makes one and calls `run`."""

    def __init__(
        self, settings: Settings, arguments: Sequence[str], init: Init, out: Sink, err: Sink
    ) -> None:
        """Start nothing yet. `arguments` end vLLM's command line; it prints to `out` and `err`, the log to `out`."""
        self._settings = settings
        self._arguments = tuple(arguments)
        self._init = init
        self._streams = (out, err)
        self._log = Log(settings.slug, out)
        self._progress = Progress(self._log, settings.state_file, settings.history_file)
        self._check = Check(self._log_hashing, lambda: init.stopping)
        self._snapshot_lock = SnapshotLock()
        self._logged_unwatched = False
        self._warms_up = settings.warm_s > 0 and bool(settings.warms)  # False once a run ended in its warm-up
        self._warm_up_key: bytes | None = None  # of the current run, if it is warmed up
        self._standstill: str | None = None  # why the current run was ended, if it stood still
        self._backoff = Backoff(settings.backoff_s)
        self._gpu_locks = GpuLocks(settings.gpu_slots_dir, settings.gpus, settings.slug)

    def run(self) -> int:
        """Open the ops port and run vLLM until stopped. Return the launcher's exit code, with all locks released."""
        self._open_ops_port()
        try:
            return self._run()
        finally:
            self._gpu_locks.release()
            self._snapshot_lock.release()

    def _open_ops_port(self) -> None:
        """Start the ops port, unless it is 0; if that fails, log it and go on, as a worker can serve without."""
        settings = self._settings
        disks = {"weights": settings.weights_dir, "cache": settings.cache_dir}
        try:
            if settings.ops_port:
                ops.serve(settings.ops_port, settings.state_file, disks)
        except OSError as error:  # the port is taken, or no descriptor is left
            self._log.error("no-ops-port", port=settings.ops_port, problem=error.strerror)
        except RuntimeError as error:  # no thread is left in this container
            self._log.error("no-ops-port", port=settings.ops_port, problem=str(error))

    def _run(self) -> int:
        """Do the work of `run`, which only adds the ops port and the release of locks: start vLLM once weights and GPUs
        are there, follow it to its end, and again. Return the exit code once a stop signal has come."""
        while (snapshot := self._await_weights()) is not None:
            command = command_line(self._settings, snapshot.directory, self._arguments)
            try:
                if (mine := self._await_gpus()) is None:
                    break
                self._warm_up_key, self._standstill = self._close_for_warming(), None
                vllm = process.start(command, gpus.environ(mine), self._init.spared, *self._streams)
            except StartError as error:
                self._handle_start_error(error)
                continue
            watch = Watch(self._settings.port, self._settings.hang_after_s)
            exit_code = self._serve(vllm, watch)
            watch.close()
            if exit_code is None:
                return self._stop(vllm)
            self._handle_end(exit_code, vllm.tail)
        return STOPPED

    def _await_weights(self) -> Snapshot | None:
        """Begin a run: wait until the slug's snapshot is locked and in order; return it. None if told to stop first."""
        self._progress.begin()
        return self._await(self._find_weights, self._report_weights)

    def _await_gpus(self) -> tuple[GPU, ...] | None:
        """Wait until this worker has its GPUs, and return them, those of the run before if there was one. None once
        told to stop, which it waits for after a `GpusError`. Raises `StartError` if nvidia-smi does not start yet."""
        try:
            seen = () if self._gpu_locks.are_claimed else gpus.visible(self._init)
            mine = self._await(lambda: self._gpu_locks.claim(seen), self._report_busy_gpus)
        except CancelledError:
            return None
        except GpusError as error:
            self._wait_misconfigured(str(error), None, "where its container sees the GPUs it needs")
            return None
        if mine:
            indexes, uuids = [gpu.index for gpu in mine], [gpu.uuid for gpu in mine]
            self._log.info("gpus", run=self._progress.run, indexes=indexes, uuids=uuids)
        return mine

    def _await(
        self, attempt: Callable[[], _Found], say: Callable[[WeightsError | BusyError], None]
    ) -> _Found | None:
        """Call `attempt` in a thread (a disk or a lock may block) every second until it succeeds, and return its
        result. None if told to stop first. `say` gets an error only if its text is not that of the one before."""
        said = None
        while not self._init.stopping:
            try:
                return background.run(self._init, attempt)
            except CancelledError:
                break
            except (WeightsError, BusyError) as error:
                if str(error) != said:
                    said = str(error)
                    say(error)
            self._init.wait(_RECHECK_S)
        return None

    def _find_weights(self) -> Snapshot:
        """Find the snapshot, lock it, so that it is not removed meanwhile, and check it. `_await_weights` has it called
        in a thread, as it may hash files for minutes. Raises `WeightsError`, and `CancelledError` at a stop signal."""
        snapshot = weights.find(self._settings.weights_dir, self._settings.slug)
        self._snapshot_lock.take(snapshot.directory)
        self._check.run(snapshot)
        self._progress.set_weights_bytes(snapshot.bytes)
        return snapshot

    def _serve(self, vllm: Process, watch: Watch) -> int | None:
        """Follow a run until vLLM ends. Return its exit code, but None whenever a stop signal has come, even then."""
        self._progress.advance(Phase.STARTING)
        self._follow_start_up(vllm, watch)
        while vllm.exit_code is None and not self._init.stopping:
            self._wait_once(vllm, watch.every_s, watch.readers())
            watch.tick()
            self._log_unwatched(watch)
            if watch.standstill and vllm.exit_code is None:
                self._end_standstill(vllm, watch.standstill)
        return None if self._init.stopping else vllm.exit_code

    def _follow_start_up(self, vllm: Process, watch: Watch) -> None:
        """Poll /health until vLLM answers, then warm it up and admit clients. Return early if it ends or must stop."""
        poll = health.HealthPoll(self._settings.port, self._warm_up_key)
        while self._progress.is_starting and vllm.exit_code is None and not self._init.stopping:
            self._wait_once(vllm, poll.every_s, poll.readers())
            if vllm.exit_code is None and poll.tick():
                # log lines that vLLM printed earlier come before the phase that follows
                self._observe(vllm, vllm.readers())
                self._warm(vllm, watch)
        poll.close()

    def _warm(self, vllm: Process, watch: Watch) -> None:
        """Warm vLLM up if this run has a key for it, then admit all requests: the worker is ready. Nobody is admitted
        if vLLM has ended or a stop signal has come. `watch` must not take the warm-up's requests for a client's."""
        if self._warm_up_key:
            self._progress.advance(Phase.WARMING)
            watch.leave_out(self._send_warm_up(vllm, self._warm_up_key))
        if vllm.exit_code is None and not self._init.stopping:
            self._admit_all()
            self._progress.advance(Phase.READY)

    def _send_warm_up(self, vllm: Process, key: bytes) -> int:
        """Run the warm-up until it is over, vLLM has ended or a stop signal has come, and log it. Return how many of
        its requests vLLM may count as finished: those that `Watch` leaves out."""
        settings, steps = self._settings, plan(self._settings.warms)
        warming = Warming(settings.port, key, steps, settings.warm_s, settings.hang_after_s)
        while not warming.over and vllm.exit_code is None and not self._init.stopping:
            warming.tick()
            if warming.standstill:
                self._end_standstill(vllm, warming.standstill)
            else:
                self._wait_once(vllm, warming.every_s, warming.readers())
        warming.close()
        self._log.info("warmed", done=warming.done, problems=warming.problems or None)
        if vllm.exit_code is not None and not self._init.stopping:
            self._give_up_warm_up(warming)
        return warming.own

    def _give_up_warm_up(self, warming: Warming) -> None:
        """Turn the warm-up off for later runs: vLLM ended during it, and might do so every time. Keep it on after a
        hang without one answer, since without a warm-up clients would be let in to such a vLLM."""
        if self._standstill and not warming.answers:
            return
        self._warms_up = False
        self._log.error("not-warmed", problem="vLLM ended while it was warmed: its next runs are not")

    def _close_for_warming(self) -> bytes | None:
        """Admit only requests with the returned key, or all, and return None, if the run gets no warm-up. None also if
        the folder cannot be written (logged): nothing changes before `_admit_all`. Called before the start, so that
        vLLM answers no client before its warm-up."""
        try:
            if self._warms_up:
                return admission.close_but_for_key(self._settings.state_dir)
            admission.open_to_all(self._settings.state_dir)
        except OSError as error:
            self._log.error("not-warmed", problem=f"the state folder cannot be written: {error.strerror}")
        return None

    def _admit_all(self) -> None:
        """Admit all requests from now on, as vLLM is ready; if the folder cannot be written, log that they stay out."""
        try:
            admission.open_to_all(self._settings.state_dir)
        except OSError as error:
            self._log.error("not-opened", problem=f"the state folder cannot be written: {error.strerror}")

    def _wait_once(self, vllm: Process, seconds: float | None, others: Iterable[int] = ()) -> None:
        """Wait `seconds` at most (None: no limit) and handle vLLM's output or end. A stop signal and input on `others`
        end the wait too; the caller handles those. Every loop that follows a running vLLM waits here."""
        wake = self._init.wait(seconds, [*vllm.readers(), *others])
        self._observe(vllm, wake.readable)
        if vllm.pid in wake.ended:
            vllm.note_end(wake.ended[vllm.pid])

    def _observe(self, vllm: Process, readable: Iterable[int]) -> None:
        """Pass on vLLM's output that waits at the descriptors `readable`, and read the start-up's phase from it."""
        for line in vllm.pump(readable):
            self._progress.observe(line)

    def _stop(self, vllm: Process) -> int:
        """Refuse new requests if clients were let in, pass the stop signal on (there is one: `or` is for mypy), and
        kill vLLM after the grace period. Return the launcher's exit code, at once if vLLM has ended already."""
        number, grace_s = self._init.stop_signal or signal.SIGTERM, self._settings.stop_grace_s
        deadline, serves = time.monotonic() + grace_s, self._progress.was_ready
        self._progress.enter(Phase.STOPPING)
        self._log.info("stopping", signal=number.name, grace_s=grace_s)
        if serves:
            self._refuse_requests(vllm)
        vllm.signal(number)
        if self._ends_within(vllm, deadline - time.monotonic()):
            self._log.info("stopped", exit_code=vllm.exit_code)
            return STOPPED
        self._log.error("killed", grace_s=grace_s)
        vllm.kill_tree()
        self._ends_within(vllm, _KILL_S)
        return KILLED

    def _refuse_requests(self, vllm: Process) -> None:
        """Refuse new requests, then wait 2 s (or half the grace period) for those admitted before to reach the engine,
        which completes them even after the stop signal (`shutdown-timeout` in serve.yaml)."""
        try:
            admission.close(self._settings.state_dir)
        except OSError as error:  # a full tmpfs: requests may be cut short
            self._log.error("not-draining", problem=error.strerror)
            return
        self._ends_within(vllm, min(_TO_ENGINE_S, self._settings.stop_grace_s / 2))

    def _end_standstill(self, vllm: Process, standstill: str) -> None:
        """Log the standstill and end vLLM, with SIGKILL if need be. Return once it has ended, or, if SIGKILL does not
        end it, when told to stop: until it ends it may hold its GPUs' memory, so no other vLLM is started."""
        self._standstill, limit_s = standstill, self._settings.hang_after_s
        self._log.error("hang", problem=standstill, run=self._progress.run, hang_after_s=limit_s)
        vllm.signal(signal.SIGTERM)
        if self._ends_within(vllm, _HANG_GRACE_S):
            return
        vllm.kill_tree()
        if not self._ends_within(vllm, _KILL_S):
            self._log.error("not-ended", problem="SIGKILL has not ended vLLM", mend="restart the host")
        while vllm.exit_code is None and not self._init.stopping:
            self._wait_once(vllm, None)

    def _ends_within(self, vllm: Process, seconds: float) -> bool:
        """Wait for vLLM to end, `seconds` at most, even if a stop signal has come; return whether it has ended."""
        deadline = time.monotonic() + seconds
        while vllm.exit_code is None and (left := deadline - time.monotonic()) > 0:
            self._wait_once(vllm, left)
        return vllm.exit_code is not None

    def _handle_end(self, exit_code: int, tail: Sequence[str]) -> None:
        """Decide why a run ended without a stop signal: wait for one after a configuration error, else back off."""
        verdict = classify(
            exit_code, tail, has_answered=self._progress.has_answered, standstill=self._standstill
        )
        if verdict.kind is Kind.CONFIGURATION:
            self._wait_misconfigured(verdict.cause or f"exit code {exit_code}", exit_code, _AFTER_CHANGES)
        else:
            self._back_off(verdict, exit_code)

    def _wait_misconfigured(self, cause: str, exit_code: int | None, changes: str) -> None:
        """Log the error, release the GPUs for others and wait for a stop signal: it takes a person, and a new
        container. `changes` ends the advice: what else must be changed. `exit_code` is None if no vLLM was started."""
        mend = f"docker compose up -d --build --force-recreate {self._settings.slug}, {changes}"
        self._progress.enter(Phase.MISCONFIGURED, Trouble.CONFIGURATION, cause)
        self._log.error("configuration-error", problem=cause, mend=mend, exit_code=exit_code)
        self._gpu_locks.release()
        while not self._init.stopping:
            self._init.wait(None)

    def _handle_start_error(self, error: StartError) -> None:
        """Back off if starting vLLM or nvidia-smi again may help; otherwise treat it as a configuration error."""
        if error.is_temporary:
            self._back_off(Verdict(Kind.CRASH, str(error)), None)
        else:
            self._wait_misconfigured(str(error), None, _AFTER_CHANGES)

    def _back_off(self, verdict: Verdict, exit_code: int | None) -> None:
        """Count and log a crash or hang, and wait for the pause. `exit_code` is None if nothing could be started."""
        self._backoff = self._backoff.after_crash(self._progress.ready_s)
        delay = self._backoff.delay_s
        name = None if exit_code is None else signal_name(exit_code)
        how = verdict.cause if verdict.kind is Kind.HANG else name or f"exit code {exit_code}"
        problem = verdict.cause if exit_code is None else f"vLLM {_ENDED[verdict.kind]}: {how}"
        self._progress.enter(Phase.BACK_OFF, _TROUBLES[verdict.kind], problem)
        self._log.error(
            "crash",
            exit_code=exit_code if name is None else None,
            signal=name,
            run=self._progress.run,
            retry_in_s=delay,
            verdict=verdict.kind,
            cause=verdict.cause,
        )
        deadline = time.monotonic() + delay
        while not self._init.stopping and (left := deadline - time.monotonic()) > 0:
            self._init.wait(left)

    def _report_weights(self, error: Exception) -> None:
        """Log why there are no weights, and write it to the state file, with the command that repairs them. `_await`
        calls it (or `_report_busy_gpus`) when a try fails for another reason than the one before."""
        mend = f"docker compose up {self._settings.slug}-weights"
        is_corrupt = isinstance(error, CorruptError)
        trouble = Trouble.WEIGHTS_CORRUPT if is_corrupt else Trouble.WEIGHTS_MISSING
        self._progress.report_trouble(trouble, f"{error}; run: {mend}")
        self._log.error("weights-not-ready", problem=str(error), mend=mend)

    def _report_busy_gpus(self, error: Exception) -> None:
        """Log who holds the GPUs and write it to the state file; the phase says that the worker waits for them."""
        self._progress.advance(Phase.WAITING_FOR_GPUS)
        self._progress.report_trouble(Trouble.GPUS_BUSY, str(error))
        self._log.error(
            "gpus-busy", problem=str(error), mend="wait, or stop a holder: this worker starts by itself"
        )

    def _log_unwatched(self, watch: Watch) -> None:
        """Log, once for all runs, that no standstill can be found, because vLLM's /metrics is too large to be read."""
        if watch.is_unreadable and not self._logged_unwatched:
            self._logged_unwatched = True
            self._log.error("not-watched", problem="vLLM's /metrics is too large to tell a standstill by")

    def _log_hashing(self, file: File) -> None:
        """Log that a file whose stamp differs is hashed, which may take minutes; `Check` calls it, in its thread."""
        self._log.info("weights-hash", file=file.path, bytes=file.stamp.size)
