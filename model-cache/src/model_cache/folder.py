"""A directory with a repository's files: a disk that was carried here."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from model_cache.errors import AccessError
from model_cache.listing import ListedFile
from model_cache.manifest import ManifestFile
from model_cache.progress import Progress


class Folder:
    """The files lie in *root*, or below it under the repository's name."""

    def __init__(self, root: Path, repo: str) -> None:
        self._root = root / repo if (root / repo).is_dir() else root
        self.name = str(root)

    def list_files(self) -> list[ListedFile] | None:
        """None: a directory cannot tell what it should hold. Raises AccessError if it is not there."""
        if not self._root.is_dir():
            raise AccessError(f"{self.name} is no directory here")
        return None

    def download(self, files: Sequence[ManifestFile], into: Path, progress: Progress) -> None:
        """Copy those that are there. Raises AccessError that names one that is not, or OSError."""
        there = [file for file in files if self._has(file)]
        for file in there:
            self._copy(self._root / file.path, into / file.path)
            progress.start(file.path, file.size)
            progress.add(file.path, file.size)
        if missing := [file.path for file in files if file not in there]:
            raise AccessError(f"{self._root} has no {missing[0]}")

    def _has(self, file: ManifestFile) -> bool:
        source = (self._root / file.path).resolve()
        return source.is_relative_to(self._root.resolve()) and source.is_file()

    def _copy(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.name}.incomplete")
        shutil.copyfile(source, draft)
        draft.replace(target)
