"""The weights volume: where everything lies, who may write, and the steps that make a snapshot appear whole.

    .staging/<owner>--<name>-<digest16>/   a download in progress, kept for resuming
    .staging/<owner>--<name>-<digest16>.<run>/         the same, of one run, on a file system that hosts share
    .locks/<owner>--<name>.lock            flock: one writer per repository, on a file system of this host
    .locks/<owner>--<name>.owner           heartbeat: one writer per repository, on a file system that hosts share
    .ms/                                   the SDK's lock files, unless hosts share the volume
    models/<owner>/<name>/<digest16>/      a published snapshot; READY.json is its last file
    models/<owner>/<name>/<revision>.lock  what was listed at first use, where git has no weights.lock
    models/<owner>/<name>/<digest16>.withdrawn.json    which files of the snapshot were found to be wrong
    .quarantine/<owner>--<name>-<digest16>/            those files
    slugs/<slug>                           relative link to the snapshot that the slug serves

Every step is one atomic rename, made durable before the next, and the steps before it are repeatable:
after a crash between any two of them the next run carries on or starts that step again.
"""

import errno
import fcntl
import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote
from uuid import uuid4

from model_cache.errors import ConfigError, IntegrityError, JobError, NoSpaceError, RetryableError
from model_cache.manifest.listing import name_collisions
from model_cache.manifest.lockfile import Lockfile
from model_cache.manifest.manifest import DIGEST_DIGITS, READY, Manifest, ManifestFile
from model_cache.storage import ready, safe_open
from model_cache.storage.heartbeat_lock import HeartbeatLock
from model_cache.storage.ready import Stamp


class Volume:
    """One repository's part of the volume at *root*, and the link *slug*. Only `Job` has one; commands go by paths."""

    def __init__(self, root: Path, repo: str, slug: str, *, shared: bool = False, beat_s: float = 10) -> None:
        """Touch nothing yet. *shared*: other hosts may write to it too; *beat_s*: seconds between heartbeats."""
        self._root = root
        self._repo = repo
        self._flat_name = repo.replace("/", "--")
        self._heartbeat = (
            HeartbeatLock(root / ".locks" / f"{self._flat_name}.owner", beat_s) if shared else None
        )
        self._run = f".{self._heartbeat.run}" if self._heartbeat else ""  # in names that are this run's alone
        self._staging_root = root / ".staging"
        self._slug_link = root / "slugs" / slug

    def sdk_cache(self, home: Path) -> Path:
        """Return where the SDK keeps its locks: on the volume, for all containers; in the run's private *home* if hosts
        share the volume: the heartbeat lock keeps runs apart there, and the SDK must wait for no dead host's lock."""
        return home / "cache" if self._heartbeat else self._root / ".ms"

    def prepare(self) -> None:
        """Create the directories that every run needs, before `lock` is taken. Raises LinkError where one is a link."""
        self._root.mkdir(parents=True, exist_ok=True)
        for path in (".staging", ".locks", ".ms/.lock", "slugs", f"models/{self._repo}"):
            safe_open.make(self._root, path)

    @property
    def _models(self) -> Path:
        """Where the repository's snapshots and recorded locks lie."""
        return self._root / "models" / self._repo

    def staging(self, digest: str) -> Path:
        """Return where the snapshot is collected; keyed by content, so an old part is never mixed with a new one. On a
        shared volume each run has its own, so that runs stay apart even if the heartbeat lock fails."""
        return self._staging_root / f"{self._flat_name}-{digest[:DIGEST_DIGITS]}{self._run}"

    def snapshot(self, digest: str) -> Path:
        """Return where the snapshot is published. Raises LinkError if a link lies there."""
        return safe_open.no_link(self._models / digest[:DIGEST_DIGITS])

    def linked(self) -> Path | None:
        """Return the snapshot that the slug serves, if its link leads to one of this repository; else None."""
        snapshot = Path(os.path.realpath(self._slug_link))
        is_ours = str(snapshot.parent) == os.path.realpath(self._models)
        return snapshot if is_ours and snapshot.is_dir() else None

    @contextmanager
    def lock(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold the repository's write lock until the block ends; *on_wait* is called once if another run holds it. When
        a run dies the kernel frees its lock; on a shared file system its heartbeat stops."""
        with safe_open.writing(self._root, f".locks/{self._flat_name}.lock", keep=True) as file:
            if self._heartbeat is None:
                _flock(file, on_wait)
                yield
            else:
                with suppress(OSError):  # the heartbeat is the lock; this only tells this host's `prune`
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with self._heartbeat.held(on_wait):
                    yield

    def require_ownership(self) -> None:
        """Raise RetryableError if another run took this one for dead and goes on; asked when a download is verified."""
        if self._heartbeat and self._heartbeat.is_lost:
            raise RetryableError(
                f"this run stood still for so long that another host took over {self._repo}; run again"
            )

    def stage(self, manifest: Manifest) -> Path:
        """Return the staging directory, with whatever an earlier run left of *manifest*. Raises LinkError for any link
        in it: no run makes one, and a download would be written where it leads."""
        self.unpublish(manifest.digest)
        staging = self.staging(manifest.digest)
        if not os.path.lexists(staging) and (earlier := self._earlier_staging(manifest.digest)):
            earlier.rename(staging)
        safe_open.make(self._staging_root, staging.name)
        for path in _walk(staging):
            safe_open.no_link(path)
        return staging

    def _earlier_staging(self, digest: str) -> Path | None:
        """Return the latest staging directory of this content, whichever run's; None if there is none."""
        found = self._staging_root.glob(f"{self._flat_name}-{digest[:DIGEST_DIGITS]}*")
        return max(
            (path for path in found if path.is_dir() and not path.is_symlink()),  # not drafts of `_replace`
            key=lambda path: path.stat().st_mtime,
            default=None,
        )

    def require_space(self, staging: Path, manifest: Manifest) -> None:
        """Raise NoSpaceError, with the numbers, unless what is missing in *staging* fits on the volume."""
        present = sum(_bytes_there(path) for path in _walk(staging) if not path.is_dir())
        missing = max(0, manifest.total_bytes - present)  # what the SDK left may be more than all
        need = missing + missing // 20  # 5 % for the file system's own blocks
        stat = os.statvfs(self._root)
        free = stat.f_bavail * stat.f_frsize
        if free < need:
            raise NoSpaceError(
                f"{self._root} has {free:,} bytes free and {self._repo} needs {need:,} more; "
                "free space or move MODEL_CACHE_DIR to a larger volume, then run again"
            )
        if stat.f_files and stat.f_favail < len(manifest.files):  # 0 files: it has no such limit
            raise NoSpaceError(
                f"{self._root} has {stat.f_favail:,} inodes free for {len(manifest.files):,} files; "
                "free inodes or move MODEL_CACHE_DIR to another volume, then run again"
            )

    def require_names(self, manifest: Manifest) -> None:
        """Raise IntegrityError for names that this file system does not distinguish; most distinguish all."""
        same = name_collisions(file.path for file in manifest.files)
        if (fault := next(same, None)) and not _distinguishes_names(self._staging_root):
            raise IntegrityError(
                f"{self._root} does not tell names apart that differ in case or normal form only, and {fault}: "
                "move MODEL_CACHE_DIR to a file system that does, such as ext4 or xfs; nothing was downloaded"
            )

    def recorded_lock(self, revision: str) -> Path:
        """Return the path of the lock that `record_lock` makes at first use, whether or not there is one."""
        return self._models / f"{quote(revision, safe='')}.lock"  # one name, also of a branch with `/`

    def record_lock(self, lock: Lockfile) -> None:
        """Write *lock* to the volume at first use, so that later runs fetch the same files, whatever the hub lists."""
        self._replace(self.recorded_lock(lock.revision), lock.text())

    def publish(self, lock: Lockfile, stamps: Mapping[str, Stamp], *, locked: bool) -> Path:
        """Rename the verified staging directory, without foreign files, to the snapshot, which `stage` has made room
        for; write READY.json (*stamps*, by path, are of its verification); link the slug: durably, in this order."""
        manifest = lock.manifest
        staging, snapshot = self.staging(manifest.digest), self.snapshot(manifest.digest)
        _remove_others(staging, {f.path for f in manifest.files})
        _sync(*(path for path in _walk(staging) if path.is_dir()), staging)
        staging.rename(snapshot)
        _sync(self._staging_root, *snapshot.parents[:4])  # up to the root: `prepare` may have made them
        self.mark_ready(snapshot, lock, stamps, locked=locked)
        self.link(snapshot)
        return snapshot

    def mark_ready(
        self, snapshot: Path, lock: Lockfile, stamps: Mapping[str, Stamp], *, locked: bool
    ) -> None:
        """Write READY.json into *snapshot*, verified with these *stamps* by path; remove its withdrawal's record."""
        self._replace(snapshot / READY, ready.record(lock, stamps, locked=locked).to_json())
        self._withdrawal(snapshot).unlink(missing_ok=True)

    def _replace(self, path: Path, text: str) -> None:
        """Replace the file at *path* atomically and durably; a directory that somebody put there is removed."""
        draft = self._staging_root / f"{self._flat_name}-{path.name}{self._run}"
        with safe_open.writing(self._staging_root, draft.name) as file:
            safe_open.write(file, text.encode())
            os.fsync(file.fileno())
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        draft.rename(path)
        _sync(path.parent, self._staging_root)

    def remove_ready(self, snapshot: Path) -> None:
        """Remove READY.json: no worker starts from *snapshot* any more. Threads of `verify` call it at a wrong file."""
        try:
            (snapshot / READY).unlink(missing_ok=True)
        except IsADirectoryError:  # somebody put one in its place
            shutil.rmtree(snapshot / READY)
        _sync(snapshot)

    def withdraw(self, snapshot: Path, wrong: Sequence[ManifestFile]) -> None:
        """Remove READY.json first, so that no worker starts; then list the *wrong* files and set them aside."""
        self.remove_ready(snapshot)
        self._replace(self._withdrawal(snapshot), json.dumps({"files": [file.path for file in wrong]}) + "\n")
        quarantine = safe_open.make(self._root, f".quarantine/{self._flat_name}-{snapshot.name}")
        for file in wrong:
            with suppress(FileNotFoundError):  # a file that is missing is wrong too
                safe_open.move(snapshot, file.path, quarantine)

    def _withdrawal(self, snapshot: Path) -> Path:
        """Return the path of the list of wrong files, for launchers: beside the snapshot, which goes to staging."""
        return snapshot.with_name(f"{snapshot.name}.withdrawn.json")

    def link(self, snapshot: Path) -> None:
        """Point the slug at *snapshot* atomically, as a run's last step: a reader sees the old link or the new one."""
        target = os.path.relpath(snapshot.resolve(), self._slug_link.parent.resolve())
        draft = self._slug_link.with_name(f".{self._slug_link.name}")
        draft.unlink(missing_ok=True)  # of a run that was killed here
        draft.symlink_to(target)
        draft.rename(self._slug_link)
        _sync(self._slug_link.parent)

    def unpublish(self, digest: str) -> None:
        """Move the snapshot, if there is one, back to staging for repair: `stage` is called if it cannot be trusted."""
        staging, snapshot = self.staging(digest), self.snapshot(digest)
        if not snapshot.exists():
            return
        self.remove_ready(snapshot)
        if safe_open.no_link(staging).exists():
            shutil.rmtree(staging)  # an earlier download; the snapshot lacks only what was wrong
        snapshot.rename(staging)
        _sync(snapshot.parent, staging.parent)


def _flock(lock: BinaryIO, on_wait: Callable[[], None]) -> None:
    """Lock the open file for `Volume.lock`, blocking if need be; *on_wait* is called once before it blocks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(lock, fcntl.LOCK_EX)


def _distinguishes_names(directory: Path) -> bool:
    """Test with a file whether names that differ in case or Unicode form only are two names in *directory*: some file
    systems fold names directory by directory, so that the type of the file system does not tell."""
    probe = directory / f"Caf\u00e9-{uuid4().hex}"
    probe.touch(exist_ok=False)
    try:
        others = (probe.name.lower(), unicodedata.normalize("NFD", probe.name))
        return not any(os.path.lexists(directory / other) for other in others)
    finally:
        probe.unlink()


def has_size(root: Path, file: ManifestFile) -> bool:
    """Return whether a regular file of the right size lies under *root*; no byte is read, so it may still be wrong."""
    found = safe_open.stat_of(root, file.path)
    return found is not None and found.st_size == file.size


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn an OSError met at *root* in the block into the job's error for it (`explain`), as runs and commands do."""
    try:
        yield
    except OSError as error:
        raise explain(error, root) from error


def explain(error: OSError, root: Path) -> JobError:
    """Return the job's error, with its remedy, for an OSError met on the volume (or a directory) mounted at *root*."""
    where = error.filename or root
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(
            f"{root} is full ({error.strerror}); free space, then run again: what arrived is kept"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(
            f"uid {os.getuid()} may not write {where}; chown -R {os.getuid()} what is mounted at {root}"
        )
    if error.errno == errno.ELOOP:
        return ConfigError(f"{where} is a link, and nothing on the volume is reached through one; remove it")
    if error.errno == errno.EROFS:
        return ConfigError(f"{where} is mounted read-only; mount {root} read-write in the weights job")
    return RetryableError(
        f"the volume failed at {where}: {error.strerror or error}; check the disk, then run again"
    )


def _bytes_there(path: Path) -> int:
    """Return the file's bytes; of an `archive.draft`, which has holes until all parts have come, those allocated."""
    stat = path.lstat()
    return min(stat.st_size, stat.st_blocks * 512) if path.suffix == ".import" else stat.st_size


def _walk(root: Path) -> Iterator[Path]:
    """Yield all below *root*, no link followed; children before their directory, for `_remove_others` to empty it."""
    for directory, names, files in os.walk(root, topdown=False):
        yield from (Path(directory, name) for name in files + names)


def _remove_others(root: Path, wanted: set[str]) -> None:
    """Remove all files below *root* but those *wanted* (the SDK leaves parts), and directories that are then empty."""
    for path in _walk(root):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(root).as_posix() not in wanted:
            path.unlink()


def _sync(*directories: Path) -> None:
    """Make the directories' entries durable; the files in them were flushed when they were verified."""
    for directory in directories:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
