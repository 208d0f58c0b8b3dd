"""Writes a slug's published weights into a directory, in parts, for a host without internet access. Parts that are
there already are not written again. Where the directory is full it says with which part the next disk goes on. Exit
codes: 0 all parts are there · 2 a setting is wrong, or nothing is published · 3 the volume cannot be read · 4 a file
changed since it was verified · 5 the directory is full. `sources.archive` says what a part is, and reads them again."""

import errno
import hashlib
import json
import os
import sys
from argparse import Namespace
from pathlib import Path

from model_cache.errors import ConfigError, IntegrityError, JobError, NoSpaceError
from model_cache.manifest.document import WrongDocumentError
from model_cache.manifest.lockfile import Lockfile
from model_cache.manifest.manifest import DIGEST_DIGITS, READY
from model_cache.settings import VolumeSettings, load
from model_cache.sources.archive import INFO, LOCK, SUMS, Part, copy, parts
from model_cache.storage import ready, safe_open
from model_cache.storage.ready import Ready
from model_cache.storage.snapshot_lock import shared
from model_cache.storage.volume import explained
from model_cache.telemetry.report import human_bytes

PART_BYTES = 4_000_000_000  # what a FAT file system takes


def run(given: Namespace) -> None:
    """Write the parts of *given.slug* from number *given.first* on below *given.into*. Raises JobError."""
    with explained(given.into):
        Export(load(VolumeSettings).dir, given.slug, given.into).run(given.part_bytes, given.first)


class Export:
    """One published snapshot, copied in parts into a directory, which may be on a disk too small for all of them."""

    def __init__(self, root: Path, slug: str, into: Path) -> None:
        """Raise ConfigError where nothing is published for *slug* below *root*, IntegrityError where it changed."""
        self._snapshot = Path(os.path.realpath(root / "slugs" / slug))
        record = _record(self._snapshot)
        if record is None:
            raise ConfigError(f"{slug} has no published weights: docker compose up {slug}-weights")
        if changed := record.changed(self._snapshot):
            raise IntegrityError(f"{changed[0].path} has changed since it was verified: make verify-weights")
        self._lockfile = Lockfile(record.repo, record.revision, record.manifest())
        self._into = into / f"{slug}-{record.digest[:DIGEST_DIGITS]}"

    def run(self, part_bytes: int, first: int) -> None:
        """Write the parts from number *first* on, holding the snapshot's lock against prune. Raises ConfigError if it
        is being removed, NoSpaceError, OSError."""
        with shared(self._snapshot) as is_locked:
            if not is_locked:
                raise ConfigError(
                    f"{self._snapshot} is being removed by make prune; export what the slug has then"
                )
            self._run(part_bytes, first)

    def _run(self, part_bytes: int, first: int) -> None:
        """Write lock file and part size first, then each part from *first* on that is not there; print its name."""
        self._into.mkdir(parents=True, exist_ok=True)
        self._note(LOCK, self._lockfile.text())
        self._note(INFO, json.dumps({"part_bytes": part_bytes}) + "\n")
        for part in parts(self._lockfile.manifest, part_bytes)[first - 1 :]:
            if not self._has(part):
                self._write(part)
            sys.stdout.write(f"{part.name}  {human_bytes(part.bytes)}\n")
            sys.stdout.flush()

    def _has(self, part: Part) -> bool:
        """Return whether the part is there in full: its sum is noted last, so one that was broken off has none."""
        path, sums = self._into / part.name, self._into / SUMS
        return (
            path.exists()
            and path.stat().st_size == part.bytes
            and sums.exists()
            and f"  {part.name}\n" in sums.read_text(errors="replace")
        )

    def _write(self, part: Part) -> None:
        """Write the part under a draft's name, rename it when whole, then note its sum. A failure removes the draft."""
        draft, digest = self._into / f"{part.name}.draft", hashlib.sha256()
        try:
            with safe_open.writing(self._into, draft.name) as target:
                for piece in part.slices:
                    with safe_open.reading(self._snapshot, piece.file.path) as source:
                        source.seek(piece.begin)
                        copy(source, target, piece.end - piece.begin, digest)
                os.fsync(target.fileno())
            draft.replace(self._into / part.name)
            self._note(SUMS, f"{digest.hexdigest()}  {part.name}\n", keep=True)
        except JobError:
            draft.unlink(missing_ok=True)
            raise
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise self._full(part) if error.errno in (errno.ENOSPC, errno.EDQUOT) else error from error

    def _note(self, name: str, text: str, *, keep: bool = False) -> None:
        """Write *text* as the small file *name* beside the parts; *keep*: append it, as a part's sum to the others."""
        with safe_open.writing(self._into, name, keep=keep) as file:
            file.seek(0, os.SEEK_END)
            safe_open.write(file, text.encode())

    def _full(self, part: Part) -> NoSpaceError:
        """Return the error that says with which part the next disk begins."""
        return NoSpaceError(
            f"the disk is full before {part.name}; put in the next one and go on with FROM={part.number}"
        )


def _record(snapshot: Path) -> Ready | None:
    """Return what READY.json says, None if there is none. Raises IntegrityError for one that cannot be trusted."""
    try:
        return ready.checked(snapshot)
    except WrongDocumentError as error:
        raise IntegrityError(
            f"{snapshot / READY} cannot be trusted ({error}): make verify-weights"
        ) from error
