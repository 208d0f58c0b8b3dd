"""weights.lock: the files of a slug's weights, each with its size and sha256, one per line for git."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from model_cache.errors import ConfigError
from model_cache.manifest import document
from model_cache.manifest.document import STRICT, WrongDocumentError
from model_cache.manifest.listing import HELD, ListedFile, faults
from model_cache.manifest.manifest import Manifest, ManifestFile


@dataclass(frozen=True)
class Lockfile:
    """The files of a repository at a revision when it was locked."""

    repo: str
    revision: str
    manifest: Manifest

    def text(self) -> str:
        """Return the text of weights.lock: JSON, a line for each file, so that git shows which of them changed."""
        head = {"schema": 1, "repo": self.repo, "revision": self.revision}
        sums = {"bytes": self.manifest.total_bytes, "digest": self.manifest.digest}
        fields = [f' "{name}": {json.dumps(value)}' for name, value in (head | sums).items()]
        files = [f"  {json.dumps(asdict(file), ensure_ascii=False)}" for file in self.manifest.files]
        listed = ' "files": [\n' + ",\n".join(files) + "\n ]"
        return "{\n" + ",\n".join([*fields, listed]) + "\n}\n"

    def is_for(self, repo: str, revision: str) -> bool:
        """Return whether it is for that repository at that revision: any other lock file is not believed."""
        return (self.repo, self.revision) == (repo, revision)


@dataclass(frozen=True)
class _File:
    """A file as weights.lock lists it."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class _Document:
    """The JSON of weights.lock."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    schema: Literal[1]
    repo: Annotated[str, Field(max_length=255)]
    revision: Annotated[str, Field(max_length=255)]
    bytes: int
    digest: str
    files: tuple[_File, ...]


_DOCUMENT = TypeAdapter(_Document)


def read(path: Path, *, follow_link: bool = True) -> Lockfile | None:
    """Return the lock file at *path*, None without one. *follow_link*: False where others write. Raises ConfigError."""
    try:
        return _lock(document.parsed(_DOCUMENT, document.content(path, follow_link=follow_link)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; uid 10001 must be able to") from error
    except WrongDocumentError as error:
        raise ConfigError(f"{path} is broken ({error}); write it anew with make lock-weights") from error


def _lock(found: _Document) -> Lockfile:
    """Return the document as a lock. Raises WrongDocumentError if it cannot be a snapshot or contradicts itself."""
    listed = sorted(ListedFile(file.path, file.size, file.sha256) for file in found.files)
    if fault := next(faults(listed, HELD), None):
        raise WrongDocumentError(fault)
    manifest = Manifest(tuple(ManifestFile(f.path, f.size, str(f.sha256)) for f in listed))
    if (manifest.digest, manifest.total_bytes) != (found.digest, found.bytes):
        raise WrongDocumentError("its files do not give its digest")
    return Lockfile(found.repo, found.revision, manifest)


def changes(old: Manifest, new: Manifest) -> Iterator[str]:
    """Yield a line for each file that was added, removed or changed, for `make lock-weights`."""
    before, after = ({file.path: file for file in manifest.files} for manifest in (old, new))
    for path in sorted(before.keys() | after.keys()):
        was, becomes = before.get(path), after.get(path)
        if was is None and becomes is not None:
            yield f"+ {path}: {becomes.size:,} bytes, sha256 {becomes.sha256}"
        elif was is not None and becomes is None:
            yield f"- {path}: {was.size:,} bytes, sha256 {was.sha256}"
        elif was != becomes and was is not None and becomes is not None:
            yield f"~ {path}: {was.size:,} -> {becomes.size:,} bytes, sha256 {was.sha256} -> {becomes.sha256}"
