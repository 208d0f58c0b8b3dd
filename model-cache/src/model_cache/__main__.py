"""The process of the container SLUG-weights: a command and settings in, lines and an exit code out."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from model_cache.commands import export, inventory, prune, serve
from model_cache.errors import ConfigError, JobError, RetryableError, print_error
from model_cache.job import Job
from model_cache.manifest import lockfile
from model_cache.manifest.manifest import Manifest
from model_cache.settings import Settings, load
from model_cache.sources.archive import MIN_PART_BYTES
from model_cache.telemetry.progress import Progress
from model_cache.telemetry.report import Reporter, renderer, text_line

Task = Callable[[Job, Settings], object]  # what `_job` runs: `_fetch`, `_verify` or `_lock`
_NO_THREAD = "can't start new thread"  # Python says so in these words, and has no class of its own for it


def main() -> int:
    """Run the command that was asked for; return 0, or the exit code of the error that ended it, for sys.exit."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        given = _parser().parse_args()
        given.run(given)
    except JobError as error:
        return print_error(error)
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        return print_error(
            RetryableError(f"{error}: raise this container's limit of processes, then run again")
        )
    return 0


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports bad input as one line, like any other error: argparse calls `error` then."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {self.prog} --help says more")


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; it sets `run`, the function that carries out the one that was asked for."""
    parser = _Parser("python3 -m model_cache", description="Without a command: fetch.")
    parser.set_defaults(run=_job(_fetch))
    commands = parser.add_subparsers(metavar="COMMAND")

    def command(name: str, does: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=does, description=does)
        added.set_defaults(run=run)
        return added

    command("fetch", "the weights, unless they are there and unchanged", _job(_fetch))
    command("verify", "every byte of what is published; fetch again what is wrong", _job(_verify))
    command("lock", "print weights.lock for what the hub lists now, and what changed", _job(_lock))
    command("serve", "published weights to other nodes, read-only", serve.run)
    shown = command("inventory", "what the volume holds, a line for each slug", inventory.run)
    shown.add_argument("only", nargs="?", choices=["slugs"], help="their names alone")
    removed = command("prune", "show what nobody refers to, or remove what of it is named", prune.run)
    removed.add_argument("paths", metavar="PATH", nargs="*", help="as it was shown")
    exported = command("export", "published weights in parts, for a host without internet access", export.run)
    exported.add_argument("slug", metavar="SLUG")
    exported.add_argument("into", metavar="DIR", type=Path)
    sizes = _number(MIN_PART_BYTES, export.PART_BYTES)
    exported.add_argument("part_bytes", metavar="PART_BYTES", nargs="?", type=sizes, default="")
    exported.add_argument("first", metavar="FROM", nargs="?", type=_number(1, 1), default="")
    return parser


def _number(least: int, default: int) -> Callable[[str], int]:
    """Return argparse's reader of a number from *least* on. It gives *default* for "", which scripts pass for one not
    given, and argparse too: it reads an argument's default if that is a string."""

    def read(word: str) -> int:
        if word and not (word.isdecimal() and int(word) >= least):
            raise argparse.ArgumentTypeError(f"{word!r} is no whole number from {least:,} on")
        return int(word or default)

    return read


def _job(task: Task) -> Callable[[argparse.Namespace], None]:
    """Return a command that makes a job from the settings, runs *task* with it, and reports the error that ends it."""

    def run(_: argparse.Namespace) -> None:
        settings = load(Settings)
        progress = Progress(settings.slug, settings.chosen_repo)
        report = _reporter(progress, task, settings)
        try:
            task(Job(settings, progress, report), settings)
        except JobError as error:
            if progress.state().phase != "failed":  # else `progress_server.serving` has reported it
                progress.fail(str(error))
                report.line()
            raise

    return run


def _reporter(progress: Progress, task: Task, settings: Settings) -> Reporter:
    """Return what writes the progress: on standard output, or on standard error for `lock`, which prints a file."""
    if task is _lock:
        return Reporter(progress, sys.stderr, text_line)
    terminal = sys.stdout.isatty()
    render = renderer(settings.progress, terminal=terminal)
    return Reporter(progress, sys.stdout, render, redraws=terminal and render is text_line)


def _fetch(job: Job, _settings: Settings) -> None:
    """Publish the slug's weights if they are not: the task of `fetch`, and of a run without a command."""
    job.run()


def _verify(job: Job, _settings: Settings) -> None:
    """Read all bytes that are published: the task of `verify`, for `make verify-weights`."""
    job.verify()


def _lock(job: Job, settings: Settings) -> None:
    """Ask the hub, publish nothing; print the new weights.lock to standard output, and what it changes to standard
    error: the task of `lock`, for `make lock-weights`."""
    new = job.new_lockfile()
    old = _readable(settings.chosen_lock_file)
    differences = lockfile.changes(old.manifest if old else Manifest(()), new.manifest)
    sys.stderr.writelines(f"{line}\n" for line in differences)
    sys.stdout.write(new.text())


def _readable(path: Path | None) -> lockfile.Lockfile | None:
    """Return the lock file at *path*; None if there is none, or a broken one, since it is to be replaced."""
    try:
        return lockfile.read(path) if path else None
    except ConfigError:
        return None


def _stop(number: int, _frame: FrameType | None) -> None:
    """Exit at once, on a signal: a kill at any moment loses nothing, so there is nothing to clean up or to wait for."""
    name = signal.Signals(number).name
    os.write(2, f"model-cache: stopped by {name}; run again to resume\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
