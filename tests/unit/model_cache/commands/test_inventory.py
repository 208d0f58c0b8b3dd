"""The inventory says what is on the volume and whether it still is what was verified."""

import hashlib
from pathlib import Path

from launcher.resources.snapshot_lock import SnapshotLock
from model_cache.commands.inventory import lines
from model_cache.manifest.lockfile import Lockfile
from model_cache.manifest.manifest import READY, Manifest, ManifestFile
from model_cache.storage import ready

DATA = b"weights"


def publish(root: Path, slug: str) -> Path:
    """A snapshot of one file, with its record and its link."""
    manifest = Manifest((ManifestFile("a.safetensors", len(DATA), hashlib.sha256(DATA).hexdigest()),))
    snapshot = root / "models/owner/name" / manifest.digest[:16]
    snapshot.mkdir(parents=True)
    (snapshot / "a.safetensors").write_bytes(DATA)
    lock = Lockfile("owner/name", "master", manifest)
    stamps = {"a.safetensors": ready.stamp((snapshot / "a.safetensors").lstat())}
    (snapshot / READY).write_text(ready.record(lock, stamps, locked=False).to_json())
    (root / "slugs").mkdir()
    (root / "slugs" / slug).symlink_to(snapshot)
    return snapshot


def test_a_verified_snapshot(tmp_path: Path) -> None:
    """Repository, size, digest, and on whose word: nobody's but the hub's, at the first download."""
    snapshot = publish(tmp_path, "tiny-cpu")
    (line,) = lines(tmp_path)
    assert line.startswith("tiny-cpu: owner/name at master, 7 B in 1 files, digest ")
    assert snapshot.name in line
    assert "trusted at first use" in line
    assert line.endswith("unchanged since, held by no worker")


def test_a_changed_file_shows(tmp_path: Path) -> None:
    """A file that was written since is counted."""
    snapshot = publish(tmp_path, "tiny-cpu")
    (snapshot / "a.safetensors").write_bytes(b"others!!")
    assert lines(tmp_path)[0].endswith("1 files have changed since, held by no worker")


def test_a_snapshot_without_a_record(tmp_path: Path) -> None:
    """It is not called weights, and the line has the command that makes it some."""
    snapshot = publish(tmp_path, "tiny-cpu")
    (snapshot / READY).unlink()
    assert lines(tmp_path) == ["tiny-cpu: not verified: docker compose up tiny-cpu-weights"]


def test_who_uses_it(tmp_path: Path) -> None:
    """A worker's hold shows; a snapshot that lost its slug is still listed."""
    snapshot = publish(tmp_path, "tiny-cpu")
    (tmp_path / "slugs/tiny-cpu").unlink()
    hold = SnapshotLock()
    hold.take(snapshot)
    try:
        (line,) = lines(tmp_path)
    finally:
        hold.release()
    assert line.startswith("no slug: owner/name at master, 7 B")
    assert line.endswith("held by a worker")


def test_an_empty_volume(tmp_path: Path) -> None:
    """No slug, no line."""
    assert lines(tmp_path) == []
