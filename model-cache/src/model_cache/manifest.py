"""What a snapshot consists of: a hub's listing, judged before a byte is fetched. Pure."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from model_cache.errors import IntegrityError

INDEX = "model.safetensors.index.json"
READY = "READY.json"
"""Written into the published snapshot as its last file, so no repository may bring its own."""

DIGEST_DIGITS = 16
"""How much of a manifest's digest names a directory."""

_MAX_PART_BYTES = 255


class ListedFile(NamedTuple):
    """A file as the hub lists it: nothing about it is trusted yet."""

    path: str
    size: int
    sha256: str | None


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
        """Size of the whole snapshot."""
        return sum(f.size for f in self.files)

    @property
    def index(self) -> ManifestFile | None:
        """The file that names the weight shards, in a model that has several."""
        return next((f for f in self.files if f.path == INDEX), None)

    def check_shards(self, index: bytes) -> None:
        """Raise IntegrityError unless every shard that *index* names is in the manifest."""
        missing = sorted(_shards(index) - {f.path for f in self.files})
        if missing:
            raise IntegrityError(
                f"{INDEX} names shards that the hub does not list: {_some(missing)}; "
                "the repository is incomplete: pick another MODEL_CACHE_REVISION or wait for its owner"
            )


def from_listing(listing: Iterable[ListedFile]) -> Manifest:
    """Turn a listing into a manifest.

    Raises IntegrityError for a listing that is empty, unsafe to write to disk, not verifiable
    (a file without sha256), or that cannot be a model (no config.json, no safetensors).
    """
    listed = sorted(listing, key=lambda file: file.path)
    if fault := next(_faults(listed), None):
        raise IntegrityError(
            f"the hub's listing is refused: {fault}; nothing was downloaded: "
            "check MODEL_CACHE_REPO and MODEL_CACHE_REVISION, and tell the repository's owner"
        )
    return Manifest(tuple(ManifestFile(f.path, f.size, (f.sha256 or "").lower()) for f in listed))


def _faults(listed: list[ListedFile]) -> Iterator[str]:
    if not listed:
        yield "it has no files"
    for file in listed:
        yield from _file_faults(file)
    yield from _collisions([f.path for f in listed])
    names = {f.path for f in listed}
    if "config.json" not in names:
        yield "config.json is missing"
    if not any(name.endswith(".safetensors") for name in names):
        yield "it has no *.safetensors file"


def _file_faults(file: ListedFile) -> Iterator[str]:
    for fault, applies in _PATH_FAULTS.items():
        if applies(file.path):
            yield f"path {file.path!r} {fault}"
    if file.size < 0:
        yield f"{file.path!r} has size {file.size}"
    if not re.fullmatch(r"[0-9a-fA-F]{64}", file.sha256 or ""):
        yield f"{file.path!r} has no sha256 of 64 hex digits, so it could not be verified"


def _collisions(paths: list[str]) -> Iterator[str]:
    """Paths that would be one file, or a file and a directory, on some filesystem."""
    seen: dict[str, str] = {}
    for path in paths:
        if other := seen.get(_fold(path)):
            yield f"paths {other!r} and {path!r} collide"
        seen[_fold(path)] = path
    for path in paths:
        for parent in _parents(path):
            if other := seen.get(_fold(parent)):
                yield f"{other!r} is both a file and the directory of {path!r}"


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _encodable(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


_PATH_FAULTS: Mapping[str, Callable[[str], bool]] = {
    "is not valid Unicode": lambda path: not _encodable(path),
    "is absolute": lambda path: path.startswith("/"),
    "has a backslash": lambda path: "\\" in path,
    "has a control character": lambda path: any(unicodedata.category(c) == "Cc" for c in path),
    "has an empty, '.' or '..' part": lambda path: any(part in ("", ".", "..") for part in path.split("/")),
    "has a part over 255 bytes": lambda path: any(
        len(part.encode(errors="replace")) > _MAX_PART_BYTES for part in path.split("/")
    ),
    f"is reserved for {READY}": lambda path: _fold(path.partition("/")[0]) == _fold(READY),
}


def _shards(index: bytes) -> set[str]:
    try:
        return set(json.loads(index)["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"{INDEX} has no readable weight_map; pick another MODEL_CACHE_REVISION or tell the owner"
        ) from error


def _some(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
