"""The directory that a hub serves: ``<root>/<owner>/<name>/**``, as ModelScope lists it."""

import hashlib
import threading
from pathlib import Path
from typing import Any


class Models:
    """Lists and finds the files of the models under *root*."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._lock = threading.Lock()
        self._hashes: dict[tuple[Path, int, int], str] = {}

    def find(self, repo: str, path: str = "") -> Path | None:
        """The file or directory *path* of *repo*; None when there is none inside the repository."""
        base = self._root / repo
        found = (base / path).resolve()
        inside = found.is_relative_to(base) and base.parent.parent == self._root
        return found if inside and found.exists() else None

    def listing(self, repo: str, below: str, *, recursive: bool) -> list[dict[str, Any]]:
        """Entries of the files and directories of *repo* under the directory *below*."""
        base = self._root / repo
        top = base / below
        paths = sorted(top.rglob("*") if recursive else top.iterdir())
        return [self._entry(path, path.relative_to(base).as_posix()) for path in paths]

    def _entry(self, path: Path, name: str) -> dict[str, Any]:
        if path.is_dir():
            return {"Path": name, "Name": path.name, "Type": "tree", "Size": 0, "Sha256": ""}
        size = path.stat().st_size
        return {"Path": name, "Name": path.name, "Type": "blob", "Size": size, "Sha256": self.sha256(path)}

    def sha256(self, path: Path) -> str:
        """Hex digits, hashed anew only when the file has changed."""
        stat = path.stat()
        key = (path, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if key not in self._hashes:
                with path.open("rb") as file:
                    self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
            return self._hashes[key]
