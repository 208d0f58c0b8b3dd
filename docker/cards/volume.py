"""Measures the weights volume for a slug: free space, what is downloaded, whether the snapshot is complete."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cards import documents
from cards.host import HostError

_MAX_READY_BYTES = 64 * 1024 * 1024  # of READY.json, as for the launcher


@dataclass(frozen=True)
class Disk:
    """The weights volume as one slug finds it. `staged_bytes` is the size of an unfinished download. `complete`: a
    published snapshot is there with every file at its size (only sizes are compared)."""

    free_bytes: int
    staged_bytes: int
    complete: bool


def measure(root: Path, slug: str, repo: str) -> Disk:
    """Return what is on the volume mounted at `root` for this slug, for `preflight.of_disk`. Raises HostError."""
    try:
        return Disk(shutil.disk_usage(root).free, _staged(root, repo), _complete(root / "slugs" / slug, repo))
    except OSError as error:
        raise HostError(
            f"the weights volume cannot be looked at ({error.filename or root}: {error.strerror}): "
            "check WEIGHTS_DIR and its owner, uid 10001"
        ) from None


def _staged(root: Path, repo: str) -> int:
    """Return the bytes of the repository's largest unfinished download, which the weights job can resume."""
    downloads = (root / ".staging").glob(f"{repo.replace('/', '--')}-*")
    return max(map(_size, downloads), default=0)


def _size(directory: Path) -> int:
    """Return the bytes of all files below a directory, by their lengths: holes of an import count as downloaded."""
    paths = (Path(parent, name) for parent, _, names in os.walk(directory) for name in names)
    return sum(path.lstat().st_size for path in paths)


def _complete(snapshot: Path, repo: str) -> bool:
    """Return whether there is a READY.json of the repository, and each file that it lists has its size."""
    try:
        ready = documents.parse_json(documents.read(snapshot / "READY.json", _MAX_READY_BYTES))
        files = ready["files"]
        return bool(files and ready["repo"] == repo and all(_present(snapshot, file) for file in files))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return False  # the weights job says what is wrong with it


def _present(snapshot: Path, file: Mapping[str, Any]) -> bool:
    """Return whether a file that READY.json lists is there with its size. `_complete` catches a bad entry's error."""
    path = Path(snapshot, file["path"])
    return path.is_file() and path.stat().st_size == int(file["size"])
