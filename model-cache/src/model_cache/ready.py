"""READY.json: the record, written last, that a snapshot was verified, and how to recheck it cheaply."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from model_cache.lock import Lock
from model_cache.manifest import DIGEST_DIGITS, READY, Manifest, ManifestFile

_SCHEMA = 1


class Stamp(NamedTuple):
    """What tells a file from a later one of its name: size in bytes, mtime in ns, inode number."""

    size: int
    mtime_ns: int
    inode: int


def stamp(stat: os.stat_result) -> Stamp:
    """The stamp in what stat() returned."""
    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ino)


@dataclass(frozen=True, slots=True)
class ReadyFile:
    """A verified file and the stat it had then: size in bytes, mtime in ns, inode number."""

    path: str
    size: int
    sha256: str
    mtime_ns: int
    inode: int

    def unchanged(self, snapshot: Path) -> bool:
        """Whether the file still has the stat it was verified with; no byte is read."""
        try:
            return stamp(os.lstat(snapshot / self.path)) == self.stamp
        except OSError:
            return False

    @property
    def stamp(self) -> Stamp:
        """As it was when every byte was right."""
        return Stamp(self.size, self.mtime_ns, self.inode)


@dataclass(frozen=True, slots=True)
class Ready:
    """What READY.json says. *digest* is the manifest's, 64 hex digits; *published_at* is UTC, ISO 8601, and when
    the last byte was hashed; *locked*: whether a weights.lock named the files, rather than the hub at first use.
    """

    repo: str
    revision: str
    digest: str
    bytes: int
    published_at: str
    files: tuple[ReadyFile, ...]
    locked: bool = False

    def is_for(self, repo: str, revision: str) -> bool:
        """Whether this snapshot was listed under that name."""
        return (self.repo, self.revision) == (repo, revision)

    def changed(self, snapshot: Path) -> list[ManifestFile]:
        """The files whose stat differs from the record; they need a full hash before anything trusts them."""
        return [ManifestFile(f.path, f.size, f.sha256) for f in self.files if not f.unchanged(snapshot)]

    def manifest(self) -> Manifest:
        """The manifest this record was made from."""
        return Manifest(tuple(ManifestFile(f.path, f.size, f.sha256) for f in self.files))

    def lock(self) -> Lock:
        """The lock that this snapshot fulfils."""
        return Lock(self.repo, self.revision, self.manifest())

    def stamps(self) -> dict[str, Stamp]:
        """Each file's, by its path."""
        return {f.path: f.stamp for f in self.files}

    def to_json(self) -> str:
        """The text of READY.json."""
        head = {"schema": _SCHEMA, "repo": self.repo, "revision": self.revision, "source": "modelscope"}
        body = {
            "digest": self.digest, "bytes": self.bytes, "published_at": self.published_at, "locked": self.locked,
        }  # fmt: skip
        files = [asdict(f) for f in self.files]
        return json.dumps(head | body | {"files": files}, indent=1, ensure_ascii=False) + "\n"


def record(lock: Lock, stamps: Mapping[str, Stamp], *, locked: bool) -> Ready:
    """Describe verified files; *stamps* are those that they were read with, by path."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    manifest = lock.manifest
    files = tuple(_record_file(f, stamps[f.path]) for f in manifest.files)
    return Ready(lock.repo, lock.revision, manifest.digest, manifest.total_bytes, now, files, locked)


def read(snapshot: Path) -> Ready | None:
    """The record of *snapshot*; None when there is none, or none that this version can trust."""
    try:
        ready = _parse(json.loads((snapshot / READY).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return ready if ready and snapshot.name == ready.digest[:DIGEST_DIGITS] else None


def _record_file(file: ManifestFile, seen: Stamp) -> ReadyFile:
    return ReadyFile(file.path, file.size, file.sha256, seen.mtime_ns, seen.inode)


def _parse(document: dict[str, object]) -> Ready | None:
    entries = document.pop("files")
    if document.pop("schema") != _SCHEMA or not isinstance(entries, Iterable):
        return None
    document.pop("source", None)
    files = tuple(ReadyFile(**entry) for entry in entries)
    ready = Ready(**document, files=files)  # type: ignore[arg-type]  # the digest covers what matters
    return ready if ready.manifest().digest == ready.digest else None
