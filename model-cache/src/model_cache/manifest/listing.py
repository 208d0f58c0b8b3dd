"""Validation of a hub's listing before a byte is fetched. Pure."""

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from model_cache.errors import IntegrityError
from model_cache.manifest.manifest import INDEX, READY, Manifest, ManifestFile

MAX_BYTES = 32 << 20
"""Of a listing as it comes from the network: 50,000 files need half of it."""


@dataclass(frozen=True)
class Limits:
    """The most files, bytes of a path, bytes of one of its parts, and parts of a path."""

    files: int
    path_bytes: int
    name_bytes: int
    parts: int


# The largest models have some hundreds of files. A download appends up to 30 bytes to a file's name, and Linux takes
# paths of 4096 bytes, with the volume's own part.
NEW = Limits(50_000, 2048, 224, 64)
"""Of a listing that is to be fetched."""
HELD = Limits(100_000, 4095, 255, 2048)
"""Of what is on a volume, or in a lock file: all that a file system takes, as the launcher reads it."""

_MAX_INDEX_BYTES = 128 << 20  # of the shard index, which `Job` reads as a whole
_MAX_QUOTED = 100  # characters of a path in an error
_NOTHING = hashlib.sha256(b"").hexdigest()  # an empty file's
_SHA256 = re.compile("[0-9a-fA-F]{64}")
_PART = re.compile(  # the name of one shard of several, as in model-00001-of-00004.safetensors
    r"(?P<before>.*?)(?P<number>[0-9]{1,9})-of-(?P<count>[0-9]{1,9})(?P<after>\..*)", re.DOTALL
)
_PICKLES = (".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
_CODE = (".py", ".pyc", ".pyd", ".so")


class ListedFile(NamedTuple):
    """A file as the hub lists it: nothing about it is trusted yet."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Accepted:
    """Which files of a listing are fetched, and which left out: those that run code when they are loaded."""

    manifest: Manifest
    left_out: tuple[str, ...]

    @property
    def code(self) -> list[ManifestFile]:
        """The repository's code that is fetched, since the card trusts it; `Job` reports each of these files."""
        return [file for file in self.manifest.files if is_code(file.path)]


def is_code(path: str) -> bool:
    """Return whether the file is a program, which vLLM could import under trust_remote_code."""
    return path.lower().endswith(_CODE)


def accept(listing: Iterable[ListedFile], *, trusts_code: bool) -> Accepted:
    """Turn a listing into what is fetched of it. Pickles are left out, and code unless *trusts_code*. Raises
    IntegrityError for a listing that is empty, unsafe to write to disk, not verifiable (a file without sha256), that
    cannot be a model (no config.json, no safetensors) or that lacks a shard of a numbered set."""
    # one more than the limit shows that it is passed; a path may be no string yet: str(), and lazy *shards*
    listed = sorted(map(_with_sha256, itertools.islice(listing, NEW.files + 1)), key=lambda f: str(f.path))
    kept = [file for file in listed if not _runs_code(file.path, trusts_code)]
    shards = (file.path for file in kept if file.path.endswith(".safetensors"))
    if fault := next(itertools.chain(_too_many(listed, NEW), faults(kept, NEW), _gaps(shards)), None):
        raise IntegrityError(
            f"the hub's listing is refused: {fault}; nothing was downloaded: "
            "check MODEL_CACHE_REPO and MODEL_CACHE_REVISION, and tell the repository's owner"
        )
    files = tuple(ManifestFile(f.path, f.size, (f.sha256 or "").lower()) for f in kept)  # all have one
    left_out = tuple(file.path for file in listed if _runs_code(file.path, trusts_code))
    return Accepted(Manifest(files), left_out)


def _with_sha256(file: ListedFile) -> ListedFile:
    """Return the file; an empty one with its sha256, which no hub has to list: it is always the same."""
    is_empty = type(file.size) is int and file.size == 0 and not file.sha256
    return file._replace(sha256=_NOTHING) if is_empty else file


def _runs_code(path: str, trusts_code: bool) -> bool:
    """Return whether loading the file could run code; False for what is no path: that is a fault of its own."""
    if type(path) is not str:
        return False
    return path.lower().endswith(_PICKLES) or (is_code(path) and not trusts_code)


def missing_from(listing: Iterable[ListedFile], manifest: Manifest) -> list[ManifestFile]:
    """Return the files of *manifest*, a lock file's, that *listing* lacks, or has with another size, another
    sha256, or any of a wrong type: `Job` asks before it downloads from the only source."""
    sound = (f for f in listing if (type(f.path), type(f.size), type(f.sha256)) == (str, int, str))
    listed = {ManifestFile(file.path, file.size, str(file.sha256).lower()) for file in sound}
    return [file for file in manifest.files if file not in listed]


def faults(listed: Sequence[ListedFile], limits: Limits) -> Iterator[str]:
    """Yield why these files, a hub's or a lock file's, cannot be a whole, safe snapshot: a sentence each."""
    if not listed:
        yield "it has no files"
    yield from unsafe(listed, limits)
    names = {f.path for f in listed}
    if "config.json" not in names:
        yield "config.json is missing"
    if not any(name.endswith(".safetensors") for name in names):
        yield "it has no *.safetensors file"


def unsafe(listed: Sequence[ListedFile], limits: Limits) -> Iterator[str]:
    """Yield why these files must not be touched, a sentence each: all that a READY.json is checked for. Callers take
    the first only: what follows a wrong type may raise. In nearly linear time, since anybody may send them."""
    yield from _too_many(listed, limits)
    for file in listed:
        yield from _file_faults(file, limits)
    paths = [file.path for file in listed]
    seen = set[str]()
    for path in paths:
        if path in seen:
            yield f"path {_quoted(path)} is listed twice"
        seen.add(path)
    yield from _inside_files(seen)


def _too_many(listed: Sequence[ListedFile], limits: Limits) -> Iterator[str]:
    """Yield a sentence if there are too many files; `accept` counts those that it leaves out too."""
    if len(listed) > limits.files:
        yield f"it has more than {limits.files:,} files"


def name_collisions(paths: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each set of paths that are one where case and Unicode normal forms are ignored, as by some
    volumes: `Volume.require_names` refuses them there."""
    seen: dict[str, str] = {}
    for path in paths:
        if other := seen.get(_fold(path)):
            yield f"{_quoted(other)} and {_quoted(path)} are one file there"
        seen[_fold(path)] = path
    yield from _inside_files(seen)  # of the folded paths


def _file_faults(file: ListedFile, limits: Limits) -> Iterator[str]:
    """Yield what is wrong with one file. Types and length come first: the checks after them rely on both."""
    if type(file.path) is not str or type(file.size) is not int or not isinstance(file.sha256, str | None):
        yield f"{repr(file)[:200]} is no file: its path, size or sha256 is of the wrong type"
        return
    if len(file.path) > limits.path_bytes or _utf8_length(file.path) > limits.path_bytes:
        yield f"path {_quoted(file.path)} is over {limits.path_bytes:,} bytes"
        return
    for fault, applies in _PATH_FAULTS.items():
        if applies(file.path):
            yield f"path {_quoted(file.path)} {fault}"
    parts = file.path.split("/")
    if max(map(_utf8_length, parts)) > limits.name_bytes:
        yield f"path {_quoted(file.path)} has a part over {limits.name_bytes} bytes"
    if len(parts) > limits.parts:
        yield f"path {_quoted(file.path)} has over {limits.parts} parts"
    if not 0 <= file.size < 1 << 63:  # shown only up to 64 bits, since Python refuses to print huge ones
        yield f"{_quoted(file.path)} has size {file.size if abs(file.size) < 1 << 64 else 'beyond 64 bits'}"
    if file.path == INDEX and file.size > _MAX_INDEX_BYTES:
        yield f"{INDEX} has more than {_MAX_INDEX_BYTES:,} bytes"
    if not _SHA256.fullmatch(file.sha256 or ""):
        yield f"{_quoted(file.path)} has no sha256 of 64 hex digits, so it could not be verified"


def _inside_files(paths: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each file that is a directory too: with NUL, the lowest, for `/`, both sort side by side."""
    ordered = sorted(path.replace("/", "\0") for path in paths)
    for file, other in itertools.pairwise(ordered):
        if other.startswith(f"{file}\0"):
            path, inner = file.replace("\0", "/"), other.replace("\0", "/")
            yield f"{_quoted(path)} is both a file and the directory of {_quoted(inner)}"


def _gaps(names: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each set of files named `-00001-of-00004` of which some are missing."""
    sets: dict[tuple[str, str, str], set[int]] = {}
    for match in filter(None, map(_PART.fullmatch, names)):
        if int(match["number"]) <= int(match["count"]):  # else it is no set's name
            sets.setdefault((match["before"], match["count"], match["after"]), set()).add(
                int(match["number"])
            )
    for (before, count, after), numbers in sets.items():
        first = 0 if 0 in numbers else 1  # some count from 0
        whole = range(first, first + min(int(count), len(numbers) + 1))  # n numbers have a gap in n + 1
        if (gap := next((number for number in whole if number not in numbers), None)) is not None:
            yield f"{_quoted(f'{before}{gap:05}-of-{count}{after}')} is missing, and others of its set are there"


def _fold(path: str) -> str:
    """Return the path with case and Unicode normal form undone, as some file systems compare names."""
    return unicodedata.normalize("NFC", path).casefold()


def _quoted(path: str) -> str:
    """Return the path, quoted and cut for a line that somebody reads."""
    return repr(path if len(path) <= _MAX_QUOTED else f"{path[:_MAX_QUOTED]}...")


def _utf8_length(text: str) -> int:
    """Return how many bytes the text has in UTF-8, also with a lone surrogate, which `_encodable` is to refuse."""
    return len(text.encode(errors="replace"))


def _encodable(path: str) -> bool:
    """Return whether the path can be written as UTF-8; a lone surrogate cannot."""
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
    f"is reserved for {READY}": lambda path: _fold(path.partition("/")[0]) == _fold(READY),
}
