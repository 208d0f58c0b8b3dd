"""The process: settings in, lines and an exit code out.

usage: python3 -m model_cache [fetch | verify | lock]
  fetch    the weights, unless they are there and unchanged
  verify   every byte of what is published; what is wrong is withdrawn, set aside and fetched again
  lock     print weights.lock for what the hub lists now, to standard output; what changed, to standard error
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from model_cache import lock
from model_cache.errors import ConfigError, JobError, refused
from model_cache.job import Job
from model_cache.manifest import Manifest
from model_cache.progress import Progress
from model_cache.report import Reporter, renderer, text_line
from model_cache.settings import Settings, load

Task = Callable[[Job, Settings], None]


def main() -> int:
    """Run what was asked for; returns 0 when the weights are ready, else the error's exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    task = TASKS.get(sys.argv[1] if len(sys.argv) > 1 else "fetch")
    if task is None or len(sys.argv) > 2:
        return refused(ConfigError(f"usage: python3 -m model_cache [{' | '.join(TASKS)}]"))
    try:
        settings = load()
    except JobError as error:
        return refused(error)
    progress = Progress(settings.slug, settings.chosen_repo)
    report = _reporter(progress, task, settings)
    try:
        task(Job(settings, progress, report), settings)
    except JobError as error:
        if progress.snapshot().phase != "failed":  # else it has been told
            progress.fail(str(error))
            report.line()
        return refused(error)
    return 0


def _reporter(progress: Progress, task: Task, settings: Settings) -> Reporter:
    """Where the run speaks, and how; beside a lock on standard output, to the person who asked for it."""
    if task is _lock:
        return Reporter(progress, sys.stderr, text_line)
    terminal = sys.stdout.isatty()
    render = renderer(settings.progress, terminal=terminal)
    return Reporter(progress, sys.stdout, render, redraws=terminal and render is text_line)


def _fetch(job: Job, _settings: Settings) -> None:
    job.run()


def _verify(job: Job, _settings: Settings) -> None:
    job.verify()


def _lock(job: Job, settings: Settings) -> None:
    new = job.locked()
    old = _readable(settings.chosen_lock_file)
    differences = lock.changes(old.manifest if old else Manifest(()), new.manifest)
    sys.stderr.writelines(f"{line}\n" for line in differences)
    sys.stdout.write(new.text())


def _readable(path: Path | None) -> lock.Lock | None:
    """The lock before; one that is broken is what is to be written anew."""
    try:
        return lock.read(path) if path else None
    except ConfigError:
        return None


TASKS: Mapping[str, Task] = {"fetch": _fetch, "verify": _verify, "lock": _lock}


def _stop(number: int, _frame: FrameType | None) -> None:
    """Leave at once: a kill at any moment loses nothing, so there is nothing to tidy up first."""
    name = signal.Signals(number).name
    os.write(2, f"model-cache: stopped by {name}; run again to resume\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
