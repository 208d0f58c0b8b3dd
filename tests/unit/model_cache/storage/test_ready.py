"""READY.json: written from what lies on disk, trusted only if it is whole and about this directory."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.resources import weights as launcher_weights
from model_cache.manifest import lockfile
from model_cache.manifest.document import WrongDocumentError
from model_cache.manifest.lockfile import Lockfile
from model_cache.manifest.manifest import READY, Manifest, ManifestFile
from model_cache.storage import ready
from tests.wrong_files import PLANTED, directory_name, record, text, wrong_records

MANIFEST = Manifest((ManifestFile("config.json", 2, "ab" * 32), ManifestFile("sub/x", 3, "cd" * 32)))


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A published directory with its record."""
    root = tmp_path / MANIFEST.digest[:16]
    (root / "sub").mkdir(parents=True)
    (root / "config.json").write_text("{}")
    (root / "sub" / "x").write_text("abc")
    stamps = {file.path: ready.stamp(os.lstat(root / file.path)) for file in MANIFEST.files}
    record = ready.record(Lockfile("owner/name", "v1", MANIFEST), stamps, locked=True)
    (root / READY).write_text(record.to_json(), encoding="utf-8")
    return root


def test_a_record_survives_being_written_and_read(snapshot: Path) -> None:
    """Reading gives the manifest, the name it was listed under, and nothing changed."""
    record = ready.read(snapshot)

    assert record is not None
    assert record.manifest() == MANIFEST
    assert record.is_for("owner/name", "v1")
    assert not record.is_for("owner/name", "master")
    assert record.changed(snapshot) == []
    assert record.locked


def touch(path: Path) -> None:
    """Same bytes, other time."""
    os.utime(path, ns=(1, 1))


def replace(path: Path) -> None:
    """Same bytes and time, other inode."""
    stat = path.stat()
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    copy.replace(path)


def lengthen(path: Path) -> None:
    """One byte more."""
    with path.open("a") as file:
        file.write("x")


@pytest.mark.parametrize(
    "change", [touch, replace, lengthen, Path.unlink], ids=lambda change: change.__name__
)
def test_a_change_shows_in_the_stat(snapshot: Path, change: object) -> None:
    """Time, inode, size and presence are compared, file by file."""
    change(snapshot / "sub" / "x")  # type: ignore[operator]

    record = ready.read(snapshot)
    assert record is not None
    assert [file.path for file in record.changed(snapshot)] == ["sub/x"]


@pytest.mark.parametrize("content", [pytest.param(text, id=name) for name, text in wrong_records()])
def test_a_wrong_record_is_no_record(tmp_path: Path, content: bytes) -> None:
    """Whatever it says, it is refused in a few words, and never trusted."""
    root = tmp_path / directory_name(content).replace("/", "_").replace("\0", "_")
    root.mkdir()
    (root / READY).write_bytes(content)

    with pytest.raises(WrongDocumentError) as caught:
        ready.checked(root)
    assert 0 < len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    assert ready.read(root) is None


@pytest.mark.parametrize("plant", [pytest.param(plant, id=name) for name, plant in PLANTED.items()])
def test_what_is_no_file_is_no_record(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    """Nothing waits for a pipe, follows a link or fills the memory."""
    root = tmp_path / str(record()["digest"])[:16]
    root.mkdir()
    plant(root / READY)

    with pytest.raises(WrongDocumentError):
        ready.checked(root)


def test_the_right_one_is_right(tmp_path: Path) -> None:
    """What the wrong ones are made from."""
    root = tmp_path / str(record()["digest"])[:16]
    root.mkdir()
    (root / READY).write_bytes(text(record()))
    assert ready.checked(root) is not None


def test_a_file_behind_a_link_is_not_the_one_that_was_verified(snapshot: Path, tmp_path: Path) -> None:
    """Neither where it is a link itself, nor where its directory is one: even if everything else is the same."""
    (snapshot / "sub").rename(tmp_path / "elsewhere")
    (snapshot / "sub").symlink_to(tmp_path / "elsewhere")
    (snapshot / "config.json").rename(tmp_path / "config.json")
    (snapshot / "config.json").symlink_to(tmp_path / "config.json")

    found = ready.read(snapshot)
    assert found is not None
    assert [file.path for file in found.changed(snapshot)] == ["config.json", "sub/x"]


@pytest.mark.parametrize(
    ("field", "value"), [("schema", 2), ("digest", "00" * 32), ("files", []), ("extra", 1)]
)
def test_a_record_that_contradicts_itself_is_no_record(snapshot: Path, field: str, value: object) -> None:
    """Another schema, or a digest that is not that of its files, is not trusted."""
    document = json.loads((snapshot / READY).read_text(encoding="utf-8"))
    (snapshot / READY).write_text(json.dumps(document | {field: value}), encoding="utf-8")

    assert ready.read(snapshot) is None


def test_a_record_of_another_directory_is_no_record(snapshot: Path) -> None:
    """A directory that was renamed is not what its record says."""
    moved = snapshot.rename(snapshot.with_name("0" * 16))

    assert ready.read(moved) is None


OLD_NAMES = {
    "a name of 225 bytes": "x" * 225,
    "a name of 255 bytes": "x" * 255,
    "a name of 255 bytes that is not ASCII": "模" * 85,
    "a path of 2,049 bytes": "/".join(["x" * 204] * 10),
    "a path of 4,095 bytes": "/".join(["x" * 255] * 15 + ["x" * 127, "x" * 127]),
    "a path of 2,048 parts": "/".join("x" * 2048),
    "a part of a set": "docs/page-2-of-5.png",
    "a shard of a set": "original/model-00002-of-00005.safetensors",
}


def of_files(*paths: str) -> Manifest:
    """A snapshot as releases before this one have published it."""
    needed = ("config.json", "model.safetensors")
    return Manifest(tuple(ManifestFile(path, 1, "ab" * 32) for path in sorted((*needed, *paths))))


def recorded(folder: Path, manifest: Manifest) -> Path:
    """The directory of *manifest*, with nothing in it but its record."""
    root = folder / manifest.digest[:16]
    root.mkdir()
    stamps = {file.path: ready.Stamp(1, 2, 3) for file in manifest.files}
    text = ready.record(Lockfile("owner/name", "v1", manifest), stamps, locked=True).to_json()
    (root / READY).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("path", [pytest.param(path, id=name) for name, path in OLD_NAMES.items()])
def test_what_is_published_stays_readable(tmp_path: Path, path: str) -> None:
    """By the job, by its lock, and by the launcher, whatever would be refused of a new listing."""
    manifest = of_files(path)
    found = ready.read(recorded(tmp_path, manifest))
    assert found is not None
    assert found.manifest() == manifest

    written = tmp_path / "weights.lock"
    written.write_text(found.lock().text(), encoding="utf-8")
    assert lockfile.read(written) == found.lock()

    assert launcher_weights.parse(tmp_path, found.to_json().encode()).digest == manifest.digest


@pytest.mark.parametrize("path", ["x" * 256, "模" * 86, "/".join(["x" * 255] * 16 + ["x"])])
def test_what_no_file_system_takes_is_no_record(tmp_path: Path, path: str) -> None:
    """Names over 255 bytes and paths over 4,095."""
    assert ready.read(recorded(tmp_path, of_files(path))) is None


def test_many_files_stay_readable(tmp_path: Path) -> None:
    """More than a new listing may have."""
    many = [f"{number}.json" for number in range(60_000)]
    assert ready.read(recorded(tmp_path, of_files(*many))) is not None


def test_deep_paths_are_judged_in_time(tmp_path: Path) -> None:
    """A thousand of 2,000 parts each, where one is a file and a directory: parents are not gone through one by one."""
    tail = "/".join("a" * 2000)
    deep = [f"{number}/{tail}" for number in range(1000)]
    begin = time.process_time()
    with pytest.raises(WrongDocumentError, match="both a file and the directory"):
        ready.checked(recorded(tmp_path, of_files(*deep, "999/a/a")))
    assert time.process_time() - begin < 20
