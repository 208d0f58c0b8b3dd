"""A directory with a repository's files, such as a disk that was carried here (`dir:PATH` in MODEL_CACHE_FALLBACKS)."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from model_cache.errors import AccessError, unreadable
from model_cache.manifest.listing import ListedFile
from model_cache.manifest.manifest import ManifestFile
from model_cache.storage import safe_open
from model_cache.telemetry.progress import Progress

_BLOCK_BYTES = 8 << 20  # copied at a time


class LocalDirectory:
    """A source whose files lie in *root*, or if there is one in its directory of the repository's name, owner/name."""

    def __init__(self, root: Path, repo: str) -> None:
        self._root = root / repo if os.path.isdir(root / repo) else root
        self.name = str(root)

    def list_files(self) -> list[ListedFile] | None:
        """Return None: a directory has no listing with sha256. Raises AccessError if it does not exist."""
        if not os.path.isdir(self._root):
            raise AccessError(f"{self.name} is no directory here")
        return None

    def download(self, files: Sequence[ManifestFile], into: Path, progress: Progress) -> None:
        """Copy the files that are there, then raise AccessError naming one that is not; at once RetryableError if
        one cannot be read, or OSError of the volume."""
        there = [file for file in files if self._has(file)]
        for file in there:
            progress.start(file.path, file.size)
            self._copy(file, into, progress)
        if missing := [file.path for file in files if file not in there]:
            raise AccessError(f"{self._root} has no {missing[0]}")

    def _has(self, file: ManifestFile) -> bool:
        """Return whether the file is in the root, links resolved, with the right size (another is another version)."""
        source = Path(os.path.realpath(self._root / file.path))
        if not (source.is_relative_to(os.path.realpath(self._root)) and os.path.isfile(source)):
            return False
        return os.path.getsize(source) == file.size

    def _copy(self, file: ManifestFile, into: Path, progress: Progress) -> None:
        """Copy one file under a draft's name, then rename it, so that a part of it is never taken for it."""
        draft = f"{file.path}.incomplete"  # as other sources name it, which may resume it
        with safe_open.writing(into, draft) as copy:
            for block in self._blocks(file):
                safe_open.write(copy, block)
                progress.add(file.path, len(block))
        (into / draft).replace(into / file.path)

    def _blocks(self, file: ManifestFile) -> Iterator[bytes]:
        """Yield the file's bytes. Raises RetryableError if that fails, since an OSError would count as the volume's."""
        try:
            with (self._root / file.path).open("rb", buffering=0) as source:
                while block := source.read(_BLOCK_BYTES):
                    yield block
        except OSError as error:
            raise unreadable(str(self._root / file.path), error) from error
