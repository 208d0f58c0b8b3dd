"""Verification: every byte is read back from the disk, on all cores."""

import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from model_cache.manifest.manifest import ManifestFile
from model_cache.storage.hashing import Hasher, OnBytes
from model_cache.storage.ready import Stamp, stamp
from model_cache.storage.volume import has_size

_MAX_HASHERS = 32  # of ten megabytes each; no disk can feed more

OnRead = Callable[[ManifestFile, int], None]
"""Called from several threads with a file and the number of its bytes just read."""


@dataclass(frozen=True)
class Verdict:
    """The files that are *wrong*, and the *stamps* of the right ones, by path, as they were when they were read."""

    wrong: list[ManifestFile]
    stamps: dict[str, Stamp]


def verify(
    root: Path, files: Sequence[ManifestFile], on_read: OnRead, on_wrong: Callable[[], None] = lambda: None
) -> Verdict:
    """Read *files* under *root*. Wrong are those that are missing, on bad sectors, written to meanwhile, or of another
    size or sha256; the others are durable. Threads call *on_wrong* for each wrong one at once. Raises OSError."""
    idle = SimpleQueue[Hasher]()

    def judge(file: ManifestFile) -> Stamp | None:
        """Check one file with a hasher that is idle: there are as many as threads, so one always is."""
        hasher = idle.get()
        try:
            right = _stamp_if_right(root, file, hasher, lambda count: on_read(file, count))
        finally:
            idle.put(hasher)
        if right is None:
            on_wrong()
        return right

    count = min(len(os.sched_getaffinity(0)), _MAX_HASHERS)
    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        for _ in range(count):
            idle.put(stack.enter_context(Hasher()))
        judged = list(zip(files, pool.map(judge, files), strict=True))
    stamps = {file.path: right for file, right in judged if right is not None}
    return Verdict([file for file, right in judged if right is None], stamps)


def _stamp_if_right(root: Path, file: ManifestFile, hasher: Hasher, on_bytes: OnBytes) -> Stamp | None:
    """Return the stamp of a right file; None if it is wrong or the disk cannot read it (EIO): both are fetched anew.
    Raises any other OSError, since fetching would not help."""
    if not has_size(root, file):
        return None
    try:
        sha256, seen = _sha256(root / file.path, hasher, on_bytes)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
    return seen if sha256 == file.sha256 else None


def _sha256(path: Path, hasher: Hasher, on_bytes: OnBytes) -> tuple[str, Stamp | None]:
    """Return the digest, and the file's stamp or None if it changed while it was read: then the digest is of no use."""
    before = _flushed(path)
    sha256 = hasher.sha256(path, on_bytes)
    after = stamp(os.stat(path))
    return sha256, after if after == before else None


def _flushed(path: Path) -> Stamp:
    """Flush the file to disk and drop it from the page cache, so that what the disk has is hashed; return its stamp."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return stamp(os.fstat(file.fileno()))
