"""READY.json: the record, written last, that a snapshot was verified, and a cheap check of it."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter

from model_cache.manifest import document
from model_cache.manifest.document import STRICT, WrongDocumentError
from model_cache.manifest.listing import HELD, ListedFile, unsafe
from model_cache.manifest.lockfile import Lockfile
from model_cache.manifest.manifest import DIGEST_DIGITS, READY, Manifest, ManifestFile
from model_cache.storage import safe_open

_Size = Annotated[int, Field(ge=0, lt=1 << 63)]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(pattern="^[^\\x00-\\x1f\\x7f]{1,255}$")]


class Stamp(NamedTuple):
    """Identifies a version of a file: size in bytes, mtime in ns, inode number."""

    size: int
    mtime_ns: int
    inode: int


def stamp(stat: os.stat_result) -> Stamp:
    """Return the stamp in what stat() returned."""
    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ino)


@dataclass(frozen=True, slots=True)
class ReadyFile:
    """A verified file and the stat it had then: size in bytes, mtime in ns, inode number."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    path: str
    size: _Size
    sha256: _Sha256
    mtime_ns: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
    inode: Annotated[int, Field(ge=0, lt=1 << 64)]

    def unchanged(self, snapshot: Path) -> bool:
        """Return whether the file has the stat it was verified with; reads no byte. False if that cannot be told."""
        try:
            found = safe_open.stat_of(snapshot, self.path)
        except OSError:
            return False
        return found is not None and stamp(found) == self.stamp

    @property
    def stamp(self) -> Stamp:
        """The stamp as it was when every byte was verified."""
        return Stamp(self.size, self.mtime_ns, self.inode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What READY.json says. *digest* is the manifest's, 64 hex digits; *published_at* (UTC, ISO 8601): when
    this record was written; *locked*: whether a weights.lock named the files, rather than the hub at first use."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    schema: Literal[1]
    repo: _Name
    revision: _Name
    source: str = "modelscope"  # nothing reads it, but records of schema 1 have it
    digest: _Sha256
    bytes: _Size
    published_at: Annotated[str, Field(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z$")]
    locked: bool = False
    files: tuple[ReadyFile, ...]

    def is_for(self, repo: str, revision: str) -> bool:
        """Return whether this snapshot was listed under that name; if not, it is not what a run asks for."""
        return (self.repo, self.revision) == (repo, revision)

    def changed(self, snapshot: Path) -> list[ManifestFile]:
        """Return the files whose stat differs from the record; they must be hashed before anything trusts them."""
        return [ManifestFile(f.path, f.size, f.sha256) for f in self.files if not f.unchanged(snapshot)]

    def manifest(self) -> Manifest:
        """Return the manifest that this record was made from."""
        return Manifest(tuple(ManifestFile(f.path, f.size, f.sha256) for f in self.files))

    def lock(self) -> Lockfile:
        """Return the content as a lock file would list it: `Job` compares it with weights.lock."""
        return Lockfile(self.repo, self.revision, self.manifest())

    def stamps(self) -> dict[str, Stamp]:
        """Return each file's stamp by its path, for a new record of files that are unchanged."""
        return {f.path: f.stamp for f in self.files}

    def to_json(self) -> str:
        """Return the text of READY.json, which `Volume` writes and `serve-weights` sends."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


_READY = TypeAdapter(Ready)


def record(lock: Lockfile, stamps: Mapping[str, Stamp], *, locked: bool) -> Ready:
    """Return the record of verified files, dated now, to be published; *stamps*, by path: of their verification."""
    manifest = lock.manifest
    return Ready(
        schema=1,
        repo=lock.repo,
        revision=lock.revision,
        digest=manifest.digest,
        bytes=manifest.total_bytes,
        published_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        locked=locked,
        files=tuple(
            ReadyFile(f.path, f.size, f.sha256, stamps[f.path].mtime_ns, stamps[f.path].inode)
            for f in manifest.files
        ),
    )


def read(snapshot: Path) -> Ready | None:
    """Return the record of *snapshot*; None when there is none, or none that can be trusted (`checked` tells which)."""
    try:
        return checked(snapshot)
    except (OSError, WrongDocumentError):
        return None


def checked(snapshot: Path) -> Ready | None:
    """Return the record of *snapshot*; None when there is none. Raises OSError, and WrongDocumentError for one that
    cannot be trusted: of another type or size, with an unsafe path, or contradicting itself or the directory's name."""
    try:
        ready = document.parsed(_READY, document.content(snapshot / READY))
    except FileNotFoundError:
        return None
    manifest = ready.manifest()
    listed = [ListedFile(file.path, file.size, file.sha256) for file in manifest.files]
    if fault := next(unsafe(listed, HELD), None):
        raise WrongDocumentError(fault)
    if (manifest.digest, manifest.total_bytes) != (ready.digest, ready.bytes):
        raise WrongDocumentError("its files do not give its digest")
    if snapshot.name != ready.digest[:DIGEST_DIGITS]:
        raise WrongDocumentError(f"it is of {ready.digest[:DIGEST_DIGITS]}")
    return ready
