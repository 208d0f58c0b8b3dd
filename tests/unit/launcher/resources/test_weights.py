"""A snapshot is served only if its files are the bytes that READY.json names; hashing is rare."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import NoReturn

import pytest

from launcher.resources.weights import CancelledError, Check, Stamp, WeightsError, find
from tests.unit.launcher.published import FILES, publish

SLUG = "qwen3-0p6b-cpu"
SHARD = "sub/model.safetensors"


class Hashed:
    """Notes which files were hashed in full."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def check(self, weights: Path) -> None:
        """Check the slug once with a memory of its own."""
        Check(lambda file: self.paths.append(file.path)).run(find(weights, SLUG))


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """The directory of a published snapshot under `tmp_path`."""
    return publish(tmp_path, SLUG)


def _rewrite_ready(snapshot: Path, **changes: object) -> None:
    ready = snapshot / "READY.json"
    ready.write_text(json.dumps(json.loads(ready.read_text()) | changes))


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    before = Stamp.of(path)
    os.utime(path, ns=(before.mtime_ns + 1, before.mtime_ns + 1))


def test_an_untouched_snapshot_costs_no_hashing(tmp_path: Path, snapshot: Path) -> None:
    """Equal size, modification time and inode are enough; the real directory is found through the link."""
    hashed = Hashed()
    hashed.check(tmp_path)
    assert hashed.paths == []
    assert snapshot == find(tmp_path, SLUG).directory


def test_a_missing_link_is_named(tmp_path: Path) -> None:
    """Before anything is published the slug's link is what is missing."""
    with pytest.raises(WeightsError, match=rf"slugs/{SLUG} is missing"):
        find(tmp_path, SLUG)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG])
def test_a_volume_that_cannot_be_read_is_named(
    tmp_path: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Its rights are wrong, its disk fails, its server was started anew: whatever the system says."""

    def fail(path: Path) -> NoReturn:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "lstat", fail)
    with pytest.raises(WeightsError, match=rf"slugs/{SLUG} cannot be read: {os.strerror(number)}$"):
        find(tmp_path, SLUG)


def test_a_missing_ready_file_is_named(tmp_path: Path, snapshot: Path) -> None:
    """A link to a directory without READY.json is not a snapshot."""
    (snapshot / "READY.json").unlink()
    with pytest.raises(WeightsError, match=r"READY\.json cannot be read: No such file"):
        find(tmp_path, SLUG)


def test_a_withdrawn_snapshot_names_the_files(tmp_path: Path, snapshot: Path) -> None:
    """The weights job found them wrong: whoever starts a worker reads which."""
    (snapshot / "READY.json").unlink()
    snapshot.with_name(f"{snapshot.name}.withdrawn.json").write_text('{"files": ["model-00001.safetensors"]}')
    with pytest.raises(WeightsError, match=r"withdrawn: model-00001\.safetensors corrupt"):
        find(tmp_path, SLUG)


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{}", '{"schema": 1, "digest": "x", "files": [{}]}', '{"schema": 2}']
)
def test_a_ready_file_that_is_none_is_named(tmp_path: Path, snapshot: Path, text: str) -> None:
    """Half-written or foreign JSON ends in the same clear error, never in another exception."""
    (snapshot / "READY.json").write_text(text)
    with pytest.raises(WeightsError, match=r"READY\.json is not a READY file"):
        find(tmp_path, SLUG)


def test_a_path_that_leaves_the_snapshot_is_refused(tmp_path: Path, snapshot: Path) -> None:
    """READY.json cannot make the launcher vouch for files elsewhere."""
    entry = {"path": "../../x", "size": 1, "sha256": "0", "mtime_ns": 1, "inode": 1}
    _rewrite_ready(snapshot, files=[entry])
    with pytest.raises(WeightsError, match="leaves the snapshot"):
        find(tmp_path, SLUG)


def test_an_edited_manifest_is_refused(tmp_path: Path, snapshot: Path) -> None:
    """The digest must be that of the files listed."""
    _rewrite_ready(snapshot, files=[])
    with pytest.raises(WeightsError, match="contradicts itself"):
        find(tmp_path, SLUG)


def test_a_snapshot_in_the_wrong_directory_is_refused(tmp_path: Path, snapshot: Path) -> None:
    """The directory's name is the beginning of the digest."""
    other = snapshot.with_name("0" * 16)
    snapshot.rename(other)
    link = tmp_path / "slugs" / SLUG
    link.unlink()
    link.symlink_to(other)
    with pytest.raises(WeightsError, match="belongs to another snapshot"):
        find(tmp_path, SLUG)


def test_a_touched_file_with_the_same_bytes_is_accepted(tmp_path: Path, snapshot: Path) -> None:
    """Only the file whose stat differs is hashed."""
    os.utime(snapshot / SHARD, ns=(1, 1))
    hashed = Hashed()
    hashed.check(tmp_path)
    assert hashed.paths == [SHARD]


def test_a_copied_snapshot_is_accepted(tmp_path: Path, snapshot: Path) -> None:
    """A restored volume has other inodes: all is hashed, all is right."""
    for path in FILES:
        copy = snapshot / f"{path}.copy"
        copy.write_bytes((snapshot / path).read_bytes())
        copy.replace(snapshot / path)
    hashed = Hashed()
    hashed.check(tmp_path)
    assert list(FILES) == hashed.paths


def test_a_flipped_byte_is_named(tmp_path: Path, snapshot: Path) -> None:
    """Same size, one bit changed: the file is named as corrupt."""
    _flip_a_byte(snapshot / SHARD)
    with pytest.raises(WeightsError, match=rf"{SHARD} is corrupt"):
        Hashed().check(tmp_path)


def test_a_truncated_file_is_named_without_hashing(tmp_path: Path, snapshot: Path) -> None:
    """A wrong size needs no hash to be wrong."""
    os.truncate(snapshot / SHARD, 100)
    hashed = Hashed()
    with pytest.raises(WeightsError, match=rf"{SHARD} has 100 bytes instead of 16384"):
        hashed.check(tmp_path)
    assert hashed.paths == []


def test_a_missing_file_is_named(tmp_path: Path, snapshot: Path) -> None:
    """A file of the manifest that is not there is named with the reason."""
    (snapshot / SHARD).unlink()
    with pytest.raises(WeightsError, match=rf"{SHARD} cannot be read: No such file"):
        Hashed().check(tmp_path)


def test_a_file_is_hashed_once_for_each_stat(tmp_path: Path, snapshot: Path) -> None:
    """Checking again, as restarts and waiting do, hashes only what has changed since."""
    hashed: list[str] = []
    check = Check(lambda file: hashed.append(file.path))
    found = find(tmp_path, SLUG)
    original = (snapshot / SHARD).read_bytes()
    _flip_a_byte(snapshot / SHARD)
    for _ in range(3):
        with pytest.raises(WeightsError, match="is corrupt"):
            check.run(found)
    assert hashed == [SHARD]
    (snapshot / SHARD).write_bytes(original)
    for _ in range(3):
        check.run(found)
    assert hashed == [SHARD, SHARD]


def test_hashing_can_be_cancelled(tmp_path: Path, snapshot: Path) -> None:
    """A stop in the middle of a large file is not kept waiting for its end."""
    os.utime(snapshot / SHARD, ns=(1, 1))
    with pytest.raises(CancelledError):
        Check(cancelled=lambda: True).run(find(tmp_path, SLUG))
