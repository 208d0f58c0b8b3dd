"""A hub's listing, judged before a byte is fetched. Pure."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from model_cache.errors import IntegrityError
from model_cache.manifest import READY, Manifest, ManifestFile

_MAX_PART_BYTES = 255
_PICKLES = (".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
_CODE = (".py", ".pyc", ".pyd", ".so")


class ListedFile(NamedTuple):
    """A file as the hub lists it: nothing about it is trusted yet."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Accepted:
    """What of a listing is fetched, and what is left out: files that run code when they are loaded."""

    manifest: Manifest
    left_out: tuple[str, ...]

    @property
    def code(self) -> list[ManifestFile]:
        """Repository code that is fetched, since the card trusts it."""
        return [file for file in self.manifest.files if is_code(file.path)]


def is_code(path: str) -> bool:
    """Whether the file is a program that vLLM would import under trust_remote_code."""
    return path.lower().endswith(_CODE)


def accept(listing: Iterable[ListedFile], *, trusts_code: bool) -> Accepted:
    """Turn a listing into what is fetched of it. Pickles are left out, and code unless *trusts_code*.

    Raises IntegrityError for a listing that is empty, unsafe to write to disk, not verifiable
    (a file without sha256), or that cannot be a model (no config.json, no safetensors).
    """
    listed = sorted(listing, key=lambda file: str(file.path))
    kept = [file for file in listed if not _runs_code(file.path, trusts_code)]
    if fault := next(faults(kept), None):
        raise IntegrityError(
            f"the hub's listing is refused: {fault}; nothing was downloaded: "
            "check MODEL_CACHE_REPO and MODEL_CACHE_REVISION, and tell the repository's owner"
        )
    files = tuple(ManifestFile(f.path, f.size, (f.sha256 or "").lower()) for f in kept)
    left_out = tuple(file.path for file in listed if _runs_code(file.path, trusts_code))
    return Accepted(Manifest(files), left_out)


def _runs_code(path: str, trusts_code: bool) -> bool:
    """False for what is no path at all: that is a fault of the listing."""
    if type(path) is not str:
        return False
    return path.lower().endswith(_PICKLES) or (is_code(path) and not trusts_code)


def missing_from(listing: Iterable[ListedFile], manifest: Manifest) -> list[ManifestFile]:
    """The files of *manifest* that *listing* has not, or has with another size or sha256."""
    sound = (file for file in listing if type(file.path) is str and type(file.sha256) is str)
    listed = {ManifestFile(file.path, file.size, str(file.sha256).lower()) for file in sound}
    return [file for file in manifest.files if file not in listed]


def faults(listed: Sequence[ListedFile]) -> Iterator[str]:
    """Why these files, sorted by path, cannot be a snapshot: a sentence each."""
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
    if type(file.path) is not str or type(file.size) is not int or not isinstance(file.sha256, str | None):
        yield f"{file!r} is no file: its path, size or sha256 is of the wrong type"
        return
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
