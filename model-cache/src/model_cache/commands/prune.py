"""Removes from the weights volume what nobody refers to, after it was shown (`make prune`). Without paths it shows a
line for each thing to remove: its path below the volume, size, reason. With paths it removes those of them that still
can go. What a slug links to, a worker holds, or a weights job may be writing is never among them; on a volume that
hosts share, no snapshot is, since another host's worker may hold it (unless MODEL_CACHE_VOLUME=local)."""

import os
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from model_cache.manifest.manifest import READY
from model_cache.settings import VolumeSettings, load
from model_cache.storage.snapshot_lock import exclusive, is_held
from model_cache.storage.volume import explained
from model_cache.telemetry.report import human_bytes

STALE_S = 86_400  # an interrupted download is kept for a day, to go on with


@dataclass(frozen=True)
class Leftover:
    """Something on the volume that nothing refers to. *lock*: the write lock of its repository, if it has one."""

    path: Path
    reason: str
    lock: Path | None = None

    @property
    def bytes(self) -> int:
        """Its size in bytes, counted anew from the disk each time."""
        return size(self.path)


def leftovers(root: Path, now: float, *, shared: bool = False) -> list[Leftover]:
    """Return all that may go below *root* at *now*, an epoch time; no snapshots if hosts share it (*shared*)."""
    snapshots = [] if shared else _snapshots(root)
    found = [*snapshots, *_downloads(root, now), *_set_aside(root)]
    return [one for one in found if not _is_in_use(one)]


def remove(root: Path, leftover: Leftover) -> bool:
    """Remove it under its repository's lock and its own; False, and kept, if one is held or it is linked by now."""
    with ExitStack() as stack:
        both = (leftover.lock, leftover.path)
        locks = [path for path in both if path is not None and path.exists() and not path.is_symlink()]
        free = all(stack.enter_context(exclusive(path)) for path in locks)
        if not free or _real(leftover.path) in _linked(root):
            return False
        if leftover.path.is_symlink() or not leftover.path.is_dir():
            leftover.path.unlink()  # and not what it leads to
            return True
        with suppress(FileNotFoundError, IsADirectoryError):
            (leftover.path / READY).unlink()  # first, if it has one: half a snapshot is none
        shutil.rmtree(leftover.path)
        return True


def size(path: Path) -> int:
    """Return the bytes of all files below a directory, as their lengths say; links are not followed."""
    return sum(stat.st_size for stat in _stats(path))


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Yield the stat of each file below a directory; skips those that vanish meanwhile."""
    for top, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                yield os.lstat(Path(top, name))


def _snapshots(root: Path) -> Iterator[Leftover]:
    """Yield the published snapshots that no slug links to."""
    linked = _linked(root)
    for path in sorted(root.glob("models/*/*/*")):
        if path.is_dir() and _real(path) not in linked:
            owner, name = path.parts[-3:-1]
            yield Leftover(path, "no slug links to it", root / ".locks" / f"{owner}--{name}.lock")


def _linked(root: Path) -> set[Path]:
    """Return what slugs link to, which the next worker uses. Drafts of links, which begin with a dot, do not count."""
    return {_real(link) for link in root.glob("slugs/[a-z0-9]*")}


def _real(path: Path) -> Path:
    """Resolve all links, also circular ones, at which Path.resolve() fails."""
    return Path(os.path.realpath(path))


def _downloads(root: Path, now: float) -> Iterator[Leftover]:
    """Yield staging directories in which nothing has changed for a day; a younger one may be resumed."""
    for path in sorted(root.glob(".staging/*")):
        if path.is_dir() and now - _last_change(path) > STALE_S:
            lock = root / ".locks" / f"{path.name.rpartition('-')[0]}.lock"  # without -<digest16>
            yield Leftover(path, "a download that was broken off more than a day ago", lock)


def _set_aside(root: Path) -> Iterator[Leftover]:
    """Yield what `Volume.withdraw` put into quarantine because its bytes were wrong; nothing reads it again."""
    for path in sorted(root.glob(".quarantine/*")):
        yield Leftover(path, "files that were found to be wrong")


def _last_change(path: Path) -> float:
    """Return when a file in the directory was last written, or it itself if it has none, in seconds since the epoch."""
    return max((stat.st_mtime for stat in _stats(path)), default=path.stat().st_mtime)


def _is_in_use(leftover: Leftover) -> bool:
    """Return whether a worker or `export` has locked the leftover, or a weights job its repository, on any host."""
    locks = (leftover.path, leftover.lock)
    if leftover.lock and leftover.lock.with_suffix(".owner").exists():
        return True  # the heartbeat lock is held, or its holder died: then the next run removes it
    return any(
        is_held(lock) for lock in locks if lock is not None and lock.exists() and not lock.is_symlink()
    )


def show(root: Path, found: Sequence[Leftover]) -> Iterator[str]:
    """Yield a line each: path, size, reason, two spaces apart, since `scripts/prune` reads the path from it."""
    for one in found:
        yield f"{one.path.relative_to(root)}  {human_bytes(one.bytes)}  {one.reason}"


def run(given: Namespace) -> None:
    """Show what could go, or remove what of it *given.paths* name, paths as they were shown. Raises JobError."""
    settings = load(VolumeSettings)
    root = settings.dir
    with explained(root):
        found = leftovers(root, time.time(), shared=settings.is_shared())
        chosen = [one for one in found if str(one.path.relative_to(root)) in given.paths]
        lines = (_removed(root, one) for one in chosen) if given.paths else show(root, found)
        sys.stdout.writelines(f"{line}\n" for line in lines)


def _removed(root: Path, leftover: Leftover) -> str:
    """Remove it, and return its line with what became of it. The line is made first: it has the size."""
    shown = next(show(root, [leftover]))
    return f"{shown}: {'removed' if remove(root, leftover) else 'somebody took it meanwhile: kept'}"
