"""Verification: every byte is read back from the disk, on all cores."""

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from model_cache.manifest import ManifestFile
from model_cache.ready import Stamp, stamp
from model_cache.volume import has_size

_BLOCK_BYTES = 1 << 20  # what a core keeps near: what was just read is hashed from there

OnBytes = Callable[[ManifestFile, int], None]
"""Called from several threads with a file and the number of its bytes just read."""


@dataclass(frozen=True)
class Verdict:
    """The files that are *wrong*, and the *stamps* of the right ones, by path, as they were when they were read."""

    wrong: list[ManifestFile]
    stamps: dict[str, Stamp]


def verify(
    root: Path,
    files: Sequence[ManifestFile],
    on_bytes: OnBytes,
    on_wrong: Callable[[], None] = lambda: None,
) -> Verdict:
    """Read *files* under *root*: wrong are those that are missing, unreadable or written to meanwhile, or differ in
    size or sha256; the others are durable.

    *on_wrong* is called, from several threads, as soon as one is found, before the others have been read.
    """

    def judge(file: ManifestFile) -> Stamp | None:
        right = _stamp_if_right(root, file, lambda n: on_bytes(file, n))
        if right is None:
            on_wrong()
        return right

    # hashlib lets go of the interpreter lock, so threads do use every core
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        judged = list(zip(files, pool.map(judge, files), strict=True))
    stamps = {file.path: right for file, right in judged if right is not None}
    return Verdict([file for file, right in judged if right is None], stamps)


def _stamp_if_right(root: Path, file: ManifestFile, on_bytes: Callable[[int], None]) -> Stamp | None:
    """None where the file is wrong, be it that the disk cannot read a part of it."""
    if not has_size(root, file):
        return None
    try:
        sha256, seen = _sha256(root / file.path, on_bytes)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
    return seen if sha256 == file.sha256 else None


def _sha256(path: Path, on_bytes: Callable[[int], None]) -> tuple[str, Stamp | None]:
    """Also the file's stamp, unless that changed while it was read."""
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        _drop_from_memory(file.fileno())
        before = stamp(os.fstat(file.fileno()))
        while count := file.readinto(block):
            digest.update(block[:count])
            on_bytes(count)
        after = stamp(os.fstat(file.fileno()))
    return digest.hexdigest(), after if after == before else None


def _drop_from_memory(descriptor: int) -> None:
    """Flush the file and forget its cached pages: what is hashed next is what the disk kept."""
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
