"""What a snapshot consists of. Pure."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from model_cache.errors import IntegrityError

INDEX = "model.safetensors.index.json"  # the shard index: which shard (weights file) holds which tensor
READY = "READY.json"
"""Written into the published snapshot as its last file, so no repository may bring its own."""

DIGEST_DIGITS = 16
"""How many digits of a manifest's digest name a directory of the volume."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file of the snapshot: relative POSIX path, size in bytes, lower-case hex sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Every file of a snapshot, sorted by path."""

    files: tuple[ManifestFile, ...]

    @cached_property
    def digest(self) -> str:
        """64 hex digits that identify the content, whatever revision name it was listed under."""
        lines = (f"{f.path}\0{f.size}\0{f.sha256}\n" for f in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def total_bytes(self) -> int:
        """Size of the whole snapshot in bytes."""
        return sum(f.size for f in self.files)

    @property
    def index(self) -> ManifestFile | None:
        """The shard index, which names the weights' files, in a model that has several; else None."""
        return next((f for f in self.files if f.path == INDEX), None)

    def check_shards(self, index: bytes) -> None:
        """Raise IntegrityError unless the manifest has every shard that *index*, the shard index's bytes, names."""
        missing = sorted(_shards(index) - {f.path for f in self.files})
        if missing:
            raise IntegrityError(
                f"{INDEX} names shards that the hub does not list: {_some(missing)}; "
                "the repository is incomplete: pick another MODEL_CACHE_REVISION or wait for its owner"
            )


def _shards(index: bytes) -> set[str]:
    """Return the names of the shards in the *index*, a JSON file. Raises IntegrityError if it is broken."""
    try:
        names = json.loads(index)["weight_map"].values()
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a shard's name is no string")
        return set(names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"{INDEX} has no readable weight_map; pick another MODEL_CACHE_REVISION or tell the owner"
        ) from error


def _some(names: list[str], limit: int = 3) -> str:
    """Return the first *limit* of the names and the number of the others, for an error's one line."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
