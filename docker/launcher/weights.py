"""A slug's published snapshot, and whether its files are still those that READY.json describes.

Every start compares size, modification time and inode of each file with READY.json, which costs a stat a
file. A file that differs in any of them (a volume restored from a backup, a touch, a flipped byte) is hashed
in full: equal bytes are accepted, other bytes are refused by name. What hashing found is remembered for as
long as the file's stat stays the same, so neither a restart of vLLM nor waiting for the mend hashes twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

_CHUNK_BYTES = 8 * 1024 * 1024

Cancelled = Callable[[], bool]


class WeightsError(Exception):
    """The weights must not be served as they are; the text names the file and what is wrong with it."""


class CorruptError(WeightsError):
    """Bytes are not those that were published."""


class CancelledError(Exception):
    """The caller asked to stop in the middle of hashing."""


@dataclass(frozen=True)
class Stat:
    """What tells a file apart without reading it: bytes, nanoseconds, inode number."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Stat:
        """Stat the file itself; raises `OSError`."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass(frozen=True)
class File:
    """One file of the manifest: its path below the snapshot, its digest, its stat when it was published."""

    path: str
    sha256: str
    stat: Stat


@dataclass(frozen=True)
class Snapshot:
    """A published snapshot: its real directory, its manifest's digest (64 hex digits) and its files."""

    directory: Path
    digest: str
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.stat.size for file in self.files)


def find(weights_dir: Path, slug: str) -> Snapshot:
    """Follow the slug's link and read READY.json; raises `WeightsError` naming what is not there or wrong."""
    link = weights_dir / "slugs" / slug
    if not link.is_symlink():
        raise WeightsError(f"{link} is missing")
    directory = Path(os.path.realpath(link))
    ready = directory / "READY.json"
    try:
        snapshot = parse(directory, ready.read_text("utf-8"))
    except OSError as error:
        if withdrawn := _withdrawn(directory):
            raise CorruptError(withdrawn) from None
        raise WeightsError(f"{ready} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{ready} is not a READY file: {type(error).__name__}: {error}") from None
    _match_digest(snapshot, ready)
    return snapshot


def _withdrawn(directory: Path) -> str | None:
    """Why the weights job took the snapshot's READY.json away; None where it did not."""
    try:
        files = json.loads(directory.with_name(f"{directory.name}.withdrawn.json").read_text("utf-8"))[
            "files"
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (
        f"{directory} is withdrawn: {', '.join(map(str, files))} corrupt; the weights job fetches that again"
    )


def parse(directory: Path, text: str) -> Snapshot:
    """Read the text of READY.json; raises `ValueError`, `KeyError`, `TypeError` or `AttributeError`."""
    ready: Mapping[str, Any] = json.loads(text)
    if ready["schema"] != 1:
        raise ValueError(f"schema {ready['schema']!r} is not 1")
    return Snapshot(directory, str(ready["digest"]), tuple(map(_file, ready["files"])))


def manifest_digest(files: tuple[File, ...]) -> str:
    """The sha256 of the canonical manifest: a line `path NUL size NUL sha256` a file, sorted."""
    lines = sorted(f"{file.path}\0{file.stat.size}\0{file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass
class Check:
    """Compares snapshots with the disk and remembers what hashing found.

    `on_hash` hears of each file before it is hashed, `cancelled` is asked between the chunks.
    """

    on_hash: Callable[[File], None] = lambda file: None
    cancelled: Cancelled = lambda: False
    _hashed: dict[Path, tuple[Stat, str]] = field(default_factory=dict)

    def run(self, snapshot: Snapshot) -> None:
        """Raise `WeightsError` for the first file that differs, `CancelledError` when asked to stop."""
        for file in snapshot.files:
            self._check(snapshot.directory / file.path, file)

    def _check(self, path: Path, file: File) -> None:
        try:
            stat = Stat.of(path)
            if stat.size != file.stat.size:
                raise CorruptError(f"{path} has {stat.size} bytes instead of {file.stat.size}")
            if stat != file.stat and self._digest(path, stat, file) != file.sha256:
                raise CorruptError(f"{path} is corrupt: its sha256 is not that of READY.json")
        except FileNotFoundError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror}") from None
        except OSError as error:
            raise CorruptError(f"{path} cannot be read: {error.strerror}") from None

    def _digest(self, path: Path, stat: Stat, file: File) -> str:
        known = self._hashed.get(path)
        if known is None or known[0] != stat:
            self.on_hash(file)
            self._hashed[path] = known = (stat, _sha256(path, self.cancelled))
        return known[1]


def _file(entry: Mapping[str, Any]) -> File:
    path = PurePosixPath(entry["path"])
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"path {entry['path']!r} leaves the snapshot")
    stat = Stat(int(entry["size"]), int(entry["mtime_ns"]), int(entry["inode"]))
    return File(str(entry["path"]), str(entry["sha256"]), stat)


def _match_digest(snapshot: Snapshot, ready: Path) -> None:
    if manifest_digest(snapshot.files) != snapshot.digest:
        raise WeightsError(f"{ready} contradicts itself: its files do not give its digest")
    if snapshot.digest[:16] != snapshot.directory.name:
        raise WeightsError(f"{ready} belongs to another snapshot: its digest is {snapshot.digest[:16]}")


def _sha256(path: Path, cancelled: Cancelled) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            if cancelled():
                raise CancelledError
            digest.update(chunk)
    return digest.hexdigest()
