"""The weights volume: is a slug's snapshot whole, how much of it has come, how much fits."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cards import documents
from cards.host import HostError

_LARGEST_READY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Disk:
    """Bytes free on the volume and bytes that already wait there, of an unfinished download.

    `complete` means that a published snapshot lies there with every file at its size; the weights job looks closer.
    """

    free_bytes: int
    staged_bytes: int
    complete: bool


def look(root: Path, slug: str, repo: str) -> Disk:
    """The volume at `root` as far as it concerns `slug` and its repository. Raises HostError."""
    try:
        return Disk(shutil.disk_usage(root).free, _staged(root, repo), _complete(root / "slugs" / slug, repo))
    except OSError as error:
        raise HostError(
            f"the weights volume cannot be looked at ({error.filename or root}: {error.strerror}): "
            "check WEIGHTS_DIR and its owner, uid 10001"
        ) from None


def _staged(root: Path, repo: str) -> int:
    """What the largest unfinished download of the repository has taken so far."""
    downloads = (root / ".staging").glob(f"{repo.replace('/', '--')}-*")
    return max(map(_size, downloads), default=0)


def _size(directory: Path) -> int:
    paths = (Path(parent, name) for parent, _, names in os.walk(directory) for name in names)
    return sum(path.lstat().st_size for path in paths)


def _complete(snapshot: Path, repo: str) -> bool:
    """Whether READY.json is for the repository, and each file that it lists has its size."""
    try:
        ready = documents.parse_json(documents.read(snapshot / "READY.json", _LARGEST_READY_BYTES))
        files = ready["files"]
        return bool(files and ready["repo"] == repo and all(_present(snapshot, file) for file in files))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return False  # the weights job says what is wrong with it


def _present(snapshot: Path, file: Mapping[str, Any]) -> bool:
    path = Path(snapshot, file["path"])
    return path.is_file() and path.stat().st_size == int(file["size"])
