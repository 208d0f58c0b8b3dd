"""The published snapshots of a volume, looked up anew for each request of serve-weights."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from model_cache.manifest.document import WrongDocumentError
from model_cache.manifest.manifest import READY
from model_cache.storage import ready, safe_open
from model_cache.storage.ready import Ready, ReadyFile, Stamp, stamp


@dataclass(frozen=True)
class _Known:
    """What is known of one READY.json: its stat when it was read, and the record, None if it cannot be trusted."""

    seen: Stamp
    record: Ready | None


@dataclass
class PublishedWeights:
    """The published snapshots below *root*. *say* is called once for each READY.json that cannot be trusted; the
    others are served. Threads may share it: each goes through a copy of the cache, and all write the same to it."""

    root: Path
    say: Callable[[str], None]
    _known: dict[Path, _Known] = field(default_factory=dict)

    def newest(self, repo: str, revision: str) -> Ready | None:
        """Return the latest record of a snapshot of that name, to be sent; None if there is none."""
        named = [record for _, record in self._snapshots() if record.is_for(repo, revision)]
        return max(named, key=lambda record: record.published_at, default=None)

    def open(self, sha256: str) -> BinaryIO | None:
        """Open an unchanged file with that content, to be sent; the caller closes it. None if there is none."""
        for snapshot, record in self._snapshots():
            for file in record.files:
                if file.sha256 == sha256 and (found := _unchanged(snapshot, file)):
                    return found
        return None

    def _snapshots(self) -> Iterator[tuple[Path, Ready]]:
        """Yield each snapshot's directory with its record, links left out; forget those that are gone."""
        paths = [path for path in self.root.glob("models/*/*/*") if self._is_without_links(path)]
        self._known = {path: read for path, read in dict(self._known).items() if path in paths}
        for path in paths:
            if record := self._record(path):
                yield path, record

    def _is_without_links(self, snapshot: Path) -> bool:
        """Return whether the path is no link and below none, which could lead out of the volume."""
        below = snapshot.relative_to(self.root)
        return os.path.realpath(snapshot) == os.path.join(os.path.realpath(self.root), below)

    def _record(self, snapshot: Path) -> Ready | None:
        """Return the record of *snapshot*, read again only if its stat has changed; None if there is none to trust."""
        try:
            seen = stamp(os.lstat(snapshot / READY))
        except OSError:
            return None
        known = self._known.get(snapshot)
        if known is None or known.seen != seen:
            known = self._known[snapshot] = _Known(seen, self._read(snapshot))
        return known.record

    def _read(self, snapshot: Path) -> Ready | None:
        """Read the record; return None, after a line by *say*, if it cannot be trusted."""
        try:
            return ready.checked(snapshot)
        except (OSError, WrongDocumentError) as error:
            self.say(f"{snapshot / READY} cannot be trusted ({error}); this snapshot is not served")
            return None


def _unchanged(snapshot: Path, file: ReadyFile) -> BinaryIO | None:
    """Open the file, then check what is open, lest it be replaced in between; None if changed or unreadable."""
    try:
        found = safe_open.reading(snapshot, file.path)
    except OSError:
        return None
    if stamp(os.fstat(found.fileno())) == file.stamp:
        return found
    found.close()
    return None
