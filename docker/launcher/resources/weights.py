"""Finds a slug's published snapshot and checks that its files are still those that READY.json describes. Reads only.
Every start compares size, modification time and inode of each file with READY.json: one stat per file. Another size is
refused. If time or inode differ (a restore from a backup, a touch, a flipped byte), the file is hashed in full, and
refused if its sha256 differs. The digest is remembered for as long as the file's stamp stays the same, so neither a
restart of vLLM nor waiting for a repair hashes twice. All of it may block, so the supervisor runs it in a thread."""

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from launcher.files import document, safe_open
from launcher.files.document import Fields
from launcher.process.init import CancelledError

_CHUNK_BYTES = 8 * 1024 * 1024  # hashed between two looks at `cancelled`
_MAX_READY_BYTES = 64 * 1024 * 1024  # of READY.json: more than 100,000 files with usual paths take
_MAX_FILES = 100_000  # in READY.json
_MAX_PATH_BYTES = 4095  # Linux' bound of a path
_MAX_NAME_BYTES = 255  # Linux' bound of one part of a path
_PATH = r"[^\x00-\x1f\x7f]+"
_SHA256 = r"[0-9a-f]{64}"
_MAX_INODE = 2**64 - 1
_MAX_NAMED = 5  # corrupt files that an error names

IsCancelled = Callable[[], bool]


class WeightsError(Exception):
    """The weights cannot be served as they are; the text names the file and says what is wrong with it."""


class CorruptError(WeightsError):
    """A file differs from what was published, or the weights job has withdrawn the snapshot for that."""


@dataclass(frozen=True)
class Stamp:
    """What shows without reading a file that it has changed: size (bytes), modification time (ns), inode number."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Return the file's stamp; no link is followed. Raises `OSError`, also if it is not a regular file."""
        found = path.lstat()
        if not S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass(frozen=True)
class File:
    """One file as READY.json lists it: path below the snapshot, sha256 in hex, and its stamp when it was published."""

    path: str
    sha256: str
    stamp: Stamp


@dataclass(frozen=True)
class Snapshot:
    """A published snapshot: its real directory, its manifest's digest (64 hex digits) and its files."""

    directory: Path
    digest: str
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """Total size of all files, for the log and metrics of the loading speed."""
        return sum(file.stamp.size for file in self.files)


def find(weights_dir: Path, slug: str) -> Snapshot:
    """Follow the link `slugs/SLUG` and read READY.json there. Raises `WeightsError` (`CorruptError` if withdrawn)."""
    link = weights_dir / "slugs" / slug
    try:
        is_there = link.is_symlink()
    except OSError as error:
        raise WeightsError(f"{link} cannot be read: {error.strerror}") from None
    if not is_there:
        raise WeightsError(f"{link} is missing")
    directory = Path(os.path.realpath(link))  # the job may set the link to another snapshot later
    ready = directory / "READY.json"
    try:
        snapshot = parse(directory, safe_open.read(ready, _MAX_READY_BYTES))
    except OSError as error:
        if withdrawn := _withdrawal_reason(directory):
            raise CorruptError(withdrawn) from None
        raise WeightsError(f"{ready} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WeightsError(f"{ready} is not a READY file: {error}") from None
    _match_digest(snapshot, ready)
    return snapshot


def _withdrawal_reason(directory: Path) -> str | None:
    """Return why the weights job removed the snapshot's READY.json: the corrupt files that it names in a file beside
    the snapshot. None if there is no such file, or it cannot be read: then READY.json is simply missing."""
    path = directory.with_name(f"{directory.name}.withdrawn.json")
    try:
        said = Fields.of(document.parse(safe_open.read(path, _MAX_READY_BYTES)))
        names = [document.shown(name).strip("'") for name in said.items("files", _MAX_FILES)]  # unquoted
    except (OSError, ValueError):
        return None
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    named = ", ".join(names[:_MAX_NAMED])
    return f"{directory} is withdrawn: {named}{more} corrupt; the weights job fetches that again"


def parse(directory: Path, content: bytes) -> Snapshot:
    """Parse the bytes of READY.json in `directory`. Raises `ValueError` with one line that says what is wrong. Pure."""
    ready = Fields.of(document.parse(content))
    ready.whole("schema", 1, 1)
    return Snapshot(directory, ready.text("digest", _SHA256), _files(ready.sections("files", _MAX_FILES)))


def manifest_digest(listed: tuple[File, ...]) -> str:
    """Return the sha256 of a line `path NUL size NUL sha256` for each file, sorted, as the weights job computes it."""
    lines = sorted(f"{file.path}\0{file.stamp.size}\0{file.sha256}\n" for file in listed)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass
class Check:
    """Compares snapshots with the disk, and remembers the digests it computed. The supervisor owns one. `on_hash` is
    called with each file before it is hashed. `cancelled` is asked between chunks of 8 MiB."""

    on_hash: Callable[[File], None] = lambda file: None
    cancelled: IsCancelled = lambda: False
    _hashed: dict[Path, tuple[Stamp, str]] = field(default_factory=dict)

    def run(self, snapshot: Snapshot) -> None:
        """Check all files. Raises `WeightsError` for the first one that differs, `CancelledError` if `cancelled`."""
        for file in snapshot.files:
            self._check(snapshot.directory / file.path, file)

    def _check(self, path: Path, file: File) -> None:
        """Check one file: its size, and its sha256 if its time or inode is not as READY.json says. Raises as `run`:
        `CorruptError` for anything but a missing file, so also if a link is in its place or the disk cannot read it."""
        try:
            stamp = Stamp.of(path)
            if stamp.size != file.stamp.size:
                raise CorruptError(f"{path} has {stamp.size} bytes instead of {file.stamp.size}")
            if stamp != file.stamp and self._digest(path, stamp, file) != file.sha256:
                raise CorruptError(f"{path} is corrupt: its sha256 is not that of READY.json")
        except FileNotFoundError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror}") from None
        except OSError as error:
            raise CorruptError(f"{path} cannot be read: {error.strerror}") from None

    def _digest(self, path: Path, stamp: Stamp, file: File) -> str:
        """Return the file's sha256: the remembered one if its stamp is the same, else hash it now."""
        known = self._hashed.get(path)
        if known is None or known[0] != stamp:
            self.on_hash(file)
            self._hashed[path] = known = (stamp, _sha256(path, self.cancelled))
        return known[1]


def _files(entries: tuple[Fields, ...]) -> tuple[File, ...]:
    """Return the files that READY.json lists. Raises `ValueError` for the same path twice, or one below another."""
    found = {file.path: file for file in map(_file, entries)}
    if len(found) < len(entries):
        raise ValueError("the same path is there twice")
    for path in found:
        for parent in PurePosixPath(path).parents:
            if str(parent) in found:
                raise ValueError(f"path {document.shown(str(parent))} is a file and a directory")
    return tuple(found.values())


def _file(entry: Fields) -> File:
    """Return one listed file. Raises `ValueError` for a path that would leave the snapshot."""
    name = entry.text("path", _PATH, most=_MAX_PATH_BYTES)
    parts = name.split("/")
    if name == "READY.json" or not all(map(_is_safe, parts)):
        raise ValueError(f"{entry.above}path {document.shown(name)} is READY.json, or leaves the snapshot")
    mtime_ns = entry.whole("mtime_ns", least=-document.MAX_WHOLE)  # negative before 1970
    stamp = Stamp(entry.whole("size"), mtime_ns, entry.whole("inode", most=_MAX_INODE))
    return File(name, entry.text("sha256", _SHA256), stamp)


def _is_safe(part: str) -> bool:
    """Return whether one part of a path is an ordinary name, which cannot lead out of the snapshot."""
    return part not in ("", ".", "..") and len(part.encode()) <= _MAX_NAME_BYTES


def _match_digest(snapshot: Snapshot, ready: Path) -> None:
    """Raise `WeightsError` unless the digest is that of the listed files, and names the snapshot's directory."""
    if manifest_digest(snapshot.files) != snapshot.digest:
        raise WeightsError(f"{ready} contradicts itself: its files do not give its digest")
    if snapshot.digest[:16] != snapshot.directory.name:
        raise WeightsError(f"{ready} belongs to another snapshot: its digest is {snapshot.digest[:16]}")


def _sha256(path: Path, cancelled: IsCancelled) -> str:
    """Return the file's digest in hex. Raises `OSError`, and `CancelledError` as soon as `cancelled` says so."""
    digest = hashlib.sha256()
    with open(safe_open.open_regular(path), "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            if cancelled():
                raise CancelledError
            digest.update(chunk)
    return digest.hexdigest()
