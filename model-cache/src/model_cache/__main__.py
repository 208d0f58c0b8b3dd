"""The process: settings in, lines and an exit code out."""

import os
import signal
import sys
from types import FrameType

from model_cache.errors import JobError
from model_cache.job import Job
from model_cache.progress import Progress
from model_cache.report import Reporter, renderer
from model_cache.settings import load


def main() -> int:
    """Run the job; returns 0 when the weights are ready, else the error's exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        settings = load()
    except JobError as error:
        return _refused(error)
    progress = Progress(settings.slug, settings.chosen_repo)
    report = Reporter(progress, sys.stdout, renderer(settings.progress, terminal=sys.stdout.isatty()))
    try:
        Job(settings, progress, report).run()
    except JobError as error:
        progress.fail(str(error))
        report.line()
        return _refused(error)
    return 0


def _refused(error: JobError) -> int:
    sys.stderr.write(f"model-cache: {error}\n")
    return error.exit_code


def _stop(number: int, _frame: FrameType | None) -> None:
    """Leave at once: a kill at any moment loses nothing, so there is nothing to tidy up first."""
    name = signal.Signals(number).name
    os.write(2, f"model-cache: stopped by {name}; run again to resume\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
