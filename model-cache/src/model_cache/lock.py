"""weights.lock: the files that a slug's weights consist of, each with its size and sha256. A file a line, for git."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_cache.errors import ConfigError
from model_cache.listing import ListedFile, faults
from model_cache.manifest import Manifest, ManifestFile

_SCHEMA = 1


@dataclass(frozen=True)
class Lock:
    """What a repository held at a revision when it was locked."""

    repo: str
    revision: str
    manifest: Manifest

    def text(self) -> str:
        """What weights.lock says: JSON."""
        head = {"schema": _SCHEMA, "repo": self.repo, "revision": self.revision}
        sums = {"bytes": self.manifest.total_bytes, "digest": self.manifest.digest}
        fields = [f' "{name}": {json.dumps(value)}' for name, value in (head | sums).items()]
        files = [f"  {json.dumps(asdict(file), ensure_ascii=False)}" for file in self.manifest.files]
        listed = ' "files": [\n' + ",\n".join(files) + "\n ]"
        return "{\n" + ",\n".join([*fields, listed]) + "\n}\n"

    def is_for(self, repo: str, revision: str) -> bool:
        """Whether it is of that repository at that revision."""
        return (self.repo, self.revision) == (repo, revision)


def read(path: Path) -> Lock | None:
    """The lock in the file at *path*, or None if there is none. Raises ConfigError for a broken one."""
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; uid 10001 must be able to") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is broken ({error}); write it anew with make lock-weights") from error


def _parse(document: dict[str, Any]) -> Lock:
    """Raises ValueError, KeyError, TypeError or AttributeError."""
    if document["schema"] != _SCHEMA:
        raise ValueError(f"its schema {document['schema']!r} is not {_SCHEMA}")
    listed = [ListedFile(entry["path"], entry["size"], entry["sha256"]) for entry in document["files"]]
    if fault := next(faults(sorted(listed)), None):
        raise ValueError(fault)
    manifest = Manifest(tuple(ManifestFile(f.path, f.size, str(f.sha256)) for f in sorted(listed)))
    if (manifest.digest, manifest.total_bytes) != (document["digest"], document["bytes"]):
        raise ValueError("its files do not give its digest")
    return Lock(document["repo"], document["revision"], manifest)


def changes(old: Manifest, new: Manifest) -> Iterator[str]:
    """A line for each file that was added, removed or changed."""
    before, after = ({file.path: file for file in manifest.files} for manifest in (old, new))
    for path in sorted(before.keys() | after.keys()):
        was, becomes = before.get(path), after.get(path)
        if was is None and becomes is not None:
            yield f"+ {path}: {becomes.size:,} bytes, sha256 {becomes.sha256}"
        elif was is not None and becomes is None:
            yield f"- {path}: {was.size:,} bytes, sha256 {was.sha256}"
        elif was != becomes and was is not None and becomes is not None:
            yield f"~ {path}: {was.size:,} -> {becomes.size:,} bytes, sha256 {was.sha256} -> {becomes.sha256}"
