"""Verification: every byte is read back from the disk, on all cores."""

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from model_cache.manifest import ManifestFile
from model_cache.volume import has_size

_BLOCK_BYTES = 1 << 20  # what a core keeps near: what was just read is hashed from there

OnBytes = Callable[[ManifestFile, int], None]
"""Called from several threads with a file and the number of its bytes just read."""


def wrong_files(
    root: Path,
    files: Sequence[ManifestFile],
    on_bytes: OnBytes,
    on_wrong: Callable[[], None] = lambda: None,
) -> list[ManifestFile]:
    """The files under *root* that are missing or unreadable, or differ in size or sha256; the others are durable.

    *on_wrong* is called, from several threads, as soon as one is found, before the others have been read.
    """

    def is_wrong(file: ManifestFile) -> bool:
        wrong = not has_size(root, file) or file.sha256 != _readable_sha256(
            root / file.path, lambda n: on_bytes(file, n)
        )
        if wrong:
            on_wrong()
        return wrong

    # hashlib lets go of the interpreter lock, so threads do use every core
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        verdicts = pool.map(is_wrong, files)
        return [file for file, wrong in zip(files, verdicts, strict=True) if wrong]


def _readable_sha256(path: Path, on_bytes: Callable[[int], None]) -> str | None:
    """None where the disk cannot read a part of it."""
    try:
        return _sha256(path, on_bytes)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


def _sha256(path: Path, on_bytes: Callable[[int], None]) -> str:
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        _drop_from_memory(file.fileno())
        while count := file.readinto(block):
            digest.update(block[:count])
            on_bytes(count)
    return digest.hexdigest()


def _drop_from_memory(descriptor: int) -> None:
    """Flush the file and forget its cached pages: what is hashed next is what the disk kept."""
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
