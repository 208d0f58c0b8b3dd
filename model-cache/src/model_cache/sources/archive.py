"""A snapshot in numbered parts of equal size, to be carried on disks: how files are divided into parts, and put
together.

DIR/<slug>-<digest16>/weights.lock            the files, with their sha256
                      part-00001-of-00120     the files' bytes in the lock's order, cut into parts
                      parts.sha256            of the parts on this disk, for `sha256sum --check`
                      export.json             {"part_bytes": the size of each part but the last}
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from model_cache.errors import ConfigError, IntegrityError, RetryableError, unreadable
from model_cache.manifest import document, lockfile
from model_cache.manifest.document import STRICT, WrongDocumentError
from model_cache.manifest.listing import ListedFile
from model_cache.manifest.manifest import DIGEST_DIGITS, Manifest, ManifestFile
from model_cache.storage import safe_open
from model_cache.telemetry.progress import Progress

LOCK, SUMS, INFO = "weights.lock", "parts.sha256", "export.json"
MIN_PART_BYTES = 1_000_000  # of a part: `export` takes no smaller size, and an export.json of one is refused
_MAX_INFO_BYTES = 4096  # of export.json, which holds one number
_MAX_PARTS = 1_000_000  # that an export.json may lead to, since each takes memory
_BLOCK_BYTES = 8 << 20  # copied at a time
_DONE = ".imported-parts"  # in the staging directory: the numbers of the parts that are unpacked
_MAX_DONE_BYTES = 1 << 20  # of that file: more than a hundred thousand numbers
_NUMBER = re.compile(rb"[0-9]{1,9}")  # of a part


@dataclass(frozen=True)
class _ExportInfo:
    """What export.json says: the size of each part but the last."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    part_bytes: Annotated[int, Field(ge=MIN_PART_BYTES, lt=1 << 63)]


_INFO_ADAPTER = TypeAdapter(_ExportInfo)


@dataclass(frozen=True)
class Slice:
    """The bytes [begin, end) of a file, which one part holds."""

    file: ManifestFile
    begin: int
    end: int


@dataclass(frozen=True)
class Part:
    """One of the *count* parts of an export, numbered from 1; its bytes are those of its *slices* in this order."""

    number: int
    count: int
    slices: tuple[Slice, ...]

    @property
    def name(self) -> str:
        """The name of its file in the directory of the export."""
        return f"part-{self.number:05}-of-{self.count:05}"

    @property
    def bytes(self) -> int:
        """Its size in bytes: `export` compares it with the file that it finds, to tell a whole part."""
        return sum(piece.end - piece.begin for piece in self.slices)


def parts(manifest: Manifest, part_bytes: int) -> list[Part]:
    """Return all parts of a snapshot, *part_bytes* bytes in each but the last, for `export` and `Archive` alike."""
    count = max(1, -(-manifest.total_bytes // part_bytes))  # rounded up; an empty one if there are no bytes
    slices: list[list[Slice]] = [[] for _ in range(count)]
    for at, piece in _cut(manifest, part_bytes):
        slices[at].append(piece)
    return [Part(number, count, tuple(pieces)) for number, pieces in enumerate(slices, 1)]


def _cut(manifest: Manifest, part_bytes: int) -> Iterator[tuple[int, Slice]]:
    """Yield all files in order, cut where a part ends, each piece with the index of its part, for `parts`."""
    at = 0  # in the bytes of all files, one after another
    for file in manifest.files:
        begin = 0
        while begin < file.size:
            part, used = divmod(at, part_bytes)
            end = min(file.size, begin + part_bytes - used)
            yield part, Slice(file, begin, end)
            at, begin = at + end - begin, end


class Archive:
    """The parts in a directory, as a source of files (`make weights-import`); the next disk may bring more of them."""

    def __init__(self, directory: Path, slug: str, repo: str, revision: str) -> None:
        """Find the export of *slug*. Raises ConfigError if there is not exactly one, or it is of other weights."""
        found = sorted(directory.glob(f"{slug}-{'[0-9a-f]' * DIGEST_DIGITS}/{LOCK}"))
        lock = lockfile.read(found[0], follow_link=False) if len(found) == 1 else None
        if lock is None:
            raise ConfigError(f"{directory} has {len(found)} exports of {slug} instead of one")
        if not lock.is_for(repo, revision):
            raise ConfigError(
                f"{found[0].parent} is of {lock.repo} at {lock.revision}, not of {repo} at {revision}"
            )
        self._root = found[0].parent
        self._lockfile = lock
        self.name = str(self._root)

    def list_files(self) -> list[ListedFile]:
        """Return the files that were exported, by the lock file on this disk, whether or not their parts are on it."""
        return [ListedFile(file.path, file.size, file.sha256) for file in self._lockfile.manifest.files]

    def download(self, files: Sequence[ManifestFile], into: Path, progress: Progress) -> None:
        """Unpack the parts that are on this disk and were not unpacked before; files get their names once all parts are
        unpacked. Raises RetryableError naming a part that is on another disk, or IntegrityError."""
        done, all_parts = _UnpackedParts(into), self._parts()
        done.forget({part.number for part in all_parts if _starts_over(part, files, into)})
        for file in files:
            progress.start(file.path, file.size)
        for part in all_parts:
            if part.number not in done.numbers and (self._root / part.name).exists():
                self._unpack(part, into)
                done.add(part.number)
            if part.number in done.numbers:
                for piece in part.slices:
                    if piece.file in files:  # the others are whole already
                        progress.add(piece.file.path, piece.end - piece.begin)
        if missing := [part for part in all_parts if part.number not in done.numbers]:
            raise RetryableError(
                f"{len(missing)} parts are on other disks, {missing[0].name} first; put in the next one and run again"
            )
        for file in files:
            safe_open.writing(into, draft(file), keep=True).close()  # a file without bytes has no part
            (into / draft(file)).replace(into / file.path)

    def _parts(self) -> list[Part]:
        """Return all parts of the export, by the part size in export.json. Raises ConfigError if that is broken."""
        try:
            info = document.parsed(_INFO_ADAPTER, document.content(self._root / INFO, _MAX_INFO_BYTES))
            if self._lockfile.manifest.total_bytes > info.part_bytes * _MAX_PARTS:
                raise WrongDocumentError(f"it makes more than {_MAX_PARTS:,} parts")
            return parts(self._lockfile.manifest, info.part_bytes)
        except (OSError, WrongDocumentError) as error:
            raise ConfigError(f"{self._root / INFO} is broken ({error}); export the weights again") from error

    def _unpack(self, part: Part, into: Path) -> None:
        """Write the part's slices into the files' drafts, durably. Raises IntegrityError if the part's sum is wrong."""
        digest = hashlib.sha256()
        with safe_open.reading(self._root, part.name) as source:
            for piece in part.slices:
                with safe_open.writing(into, draft(piece.file), keep=True) as target:
                    target.seek(piece.begin)
                    copy(source, target, piece.end - piece.begin, digest)
                    os.fsync(target.fileno())
        if f"{digest.hexdigest()}  {part.name}" not in self._sums():  # not noted: to be unpacked anew
            raise IntegrityError(f"{self._root / part.name} is not what {SUMS} says; export this part again")

    def _sums(self) -> list[str]:
        """Return the lines `sha256  name` of the sums, read anew: the next disk brings its own. Raises ConfigError."""
        try:
            return document.content(self._root / SUMS).decode(errors="replace").splitlines()
        except (OSError, WrongDocumentError) as error:
            raise ConfigError(f"{self._root / SUMS} is broken ({error}); export the weights again") from error


class _UnpackedParts:
    """The numbers of the parts that this run or earlier ones unpacked, kept in a file in the staging directory."""

    def __init__(self, into: Path) -> None:
        self._into = into
        self.numbers = _numbers(into / _DONE)

    def forget(self, numbers: set[int]) -> None:
        """Remove the *numbers* from the file too: a later run, with another disk, must unpack these parts again."""
        if numbers & self.numbers:
            self.numbers -= numbers
            self._write()

    def add(self, number: int) -> None:
        """Note a part whose bytes are on the volume, so that the run with the next disk does not need it again."""
        self.numbers.add(number)
        self._write()

    def _write(self) -> None:
        """Write the file, without a sync: a part whose number is lost is unpacked once more."""
        with safe_open.writing(self._into, _DONE) as file:
            safe_open.write(file, "".join(f"{number}\n" for number in sorted(self.numbers)).encode())


def _numbers(path: Path) -> set[int]:
    """Return the numbers in the file at *path*; none if it is missing or broken: then every part is unpacked again."""
    try:
        words = document.content(path, _MAX_DONE_BYTES).split()
    except (OSError, WrongDocumentError):
        return set()
    return {int(word) for word in words} if all(map(_NUMBER.fullmatch, words)) else set()


def _starts_over(part: Part, files: Sequence[ManifestFile], into: Path) -> bool:
    """Return whether the part must be unpacked again: one of *files* in it has no draft: it was wrong, for instance."""
    return any(piece.file in files and not (into / draft(piece.file)).exists() for piece in part.slices)


def draft(file: ManifestFile) -> str:
    """Return where a file is put together: not under the name that downloads resume from, since it may have holes."""
    return f"{file.path}.import"


def copy(source: BinaryIO, target: BinaryIO, count: int, digest: "hashlib._Hash") -> None:
    """Copy *count* bytes, hashing them, for `export` and `Archive`. Raises IntegrityError if there are fewer,
    RetryableError if they cannot be read, OSError if they cannot be written."""
    while count:
        if not (block := _read(source, min(_BLOCK_BYTES, count))):
            raise IntegrityError(f"{source.name} is shorter than it should be; export it again")
        digest.update(block)
        safe_open.write(target, block)
        count -= len(block)


def _read(source: BinaryIO, count: int) -> bytes:
    """Return up to *count* bytes. Raises RetryableError if they cannot be read: `copy` leaves OSError to its target."""
    try:
        return source.read(count)
    except OSError as error:
        raise unreadable(source.name, error) from error
