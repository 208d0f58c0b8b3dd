"""The volume's steps, each on a real directory."""

import errno
import hashlib
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from model_cache.errors import ConfigError, JobError, NoSpaceError, RetryableError
from model_cache.manifest.lockfile import Lockfile
from model_cache.manifest.manifest import READY, Manifest, ManifestFile
from model_cache.storage import ready
from model_cache.storage.ready import Stamp
from model_cache.storage.verify import verify
from model_cache.storage.volume import Volume, explain

CONTENT = {"config.json": b"{}", "sub/deep/model.safetensors": b"weights"}
MANIFEST = Manifest(tuple(ManifestFile(p, len(b), hashlib.sha256(b).hexdigest()) for p, b in CONTENT.items()))

LOCK = Lockfile("owner/name", "master", MANIFEST)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """An empty volume."""
    volume = Volume(tmp_path, "owner/name", "slug")
    volume.prepare()
    return volume


def fill(staging: Path) -> None:
    """Put the manifest's files there."""
    for path, content in CONTENT.items():
        (staging / path).parent.mkdir(parents=True, exist_ok=True)
        (staging / path).write_bytes(content)


def stamps(staging: Path) -> dict[str, Stamp]:
    """Those of the manifest's files, all verified."""
    return verify(staging, MANIFEST.files, lambda *_: None).stamps


def publish(volume: Volume) -> Path:
    """A snapshot of the manifest's files."""
    staging = volume.stage(MANIFEST)
    fill(staging)
    return volume.publish(LOCK, stamps(staging), locked=False)


def test_publishing_moves_everything_behind_the_link(volume: Volume) -> None:
    """The staging directory becomes the snapshot; strays and empty directories do not come along."""
    staging = volume.stage(MANIFEST)
    fill(staging)
    (staging / "sub" / "stray_0_99").touch()
    (staging / "empty" / "directory").mkdir(parents=True)

    snapshot = volume.publish(LOCK, stamps(staging), locked=False)

    found = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}
    assert found == {*CONTENT, READY}
    assert not (snapshot / "empty").exists()
    assert volume.linked() == snapshot
    assert not staging.exists()


def test_unpublishing_gives_the_files_back(volume: Volume) -> None:
    """A snapshot that is not trusted is staged again, without its record."""
    snapshot = publish(volume)

    staging = volume.stage(MANIFEST)

    assert not snapshot.exists()
    assert (staging / "config.json").read_bytes() == b"{}"
    assert not (staging / READY).exists()
    assert volume.linked() is None


def test_a_link_out_of_the_repository_is_not_followed(volume: Volume, tmp_path: Path) -> None:
    """A slug that served another repository has nothing to say about this one."""
    other = tmp_path / "models" / "other" / "model" / "0123456789abcdef"
    other.mkdir(parents=True)
    (tmp_path / "slugs" / "slug").symlink_to(other)

    assert volume.linked() is None


def test_the_record_is_replaced_whole(volume: Volume) -> None:
    """Marking a snapshot again leaves one record and no draft."""
    snapshot = publish(volume)

    volume.mark_ready(snapshot, replace(LOCK, revision="v2"), stamps(snapshot), locked=False)

    record = ready.read(snapshot)
    assert record is not None
    assert record.revision == "v2"
    assert list((snapshot.parents[3] / ".staging").iterdir()) == []


def test_the_lock_lets_one_in_at_a_time(volume: Volume, tmp_path: Path) -> None:
    """The second holder is told that it waits, and gets in when the first leaves."""
    waiting, entered = threading.Event(), threading.Event()

    def second() -> None:
        with Volume(tmp_path, "owner/name", "other").lock(on_wait=waiting.set):
            entered.set()

    thread = threading.Thread(target=second)
    with volume.lock(on_wait=lambda: pytest.fail("nobody else is here")):
        thread.start()
        assert waiting.wait(5)
        assert not entered.is_set()
    assert entered.wait(5)
    thread.join()


def test_space_is_asked_for_what_is_missing_only(volume: Volume, tmp_path: Path) -> None:
    """What is staged, whole or in part, needs no room a second time."""
    stat = os.statvfs(tmp_path)
    free = stat.f_bavail * stat.f_frsize
    manifest = Manifest((ManifestFile("huge", 2 * free, "ab" * 32),))
    staging = volume.stage(manifest)
    with pytest.raises(NoSpaceError, match=rf"needs {2 * free + free // 10:,} more"):
        volume.require_space(staging, manifest)

    with (staging / "huge.incomplete").open("wb") as part:
        part.truncate(2 * free - 1000)
    volume.require_space(staging, manifest)


def test_wrong_files_are_found_by_their_bytes(volume: Volume) -> None:
    """Missing, short, long, altered and linked files are wrong; right ones are counted as they are read."""
    staging = volume.stage(MANIFEST)
    fill(staging)
    read: list[int] = []
    assert verify(staging, MANIFEST.files, lambda _, count: read.append(count)).wrong == []
    assert sum(read) == MANIFEST.total_bytes

    (staging / "config.json").write_bytes(b"[]")
    weights = staging / "sub" / "deep" / "model.safetensors"
    weights.rename(staging / "elsewhere")
    weights.symlink_to(staging / "elsewhere")
    verdict = verify(staging, MANIFEST.files, lambda *_: None)
    assert (verdict.wrong, verdict.stamps) == (list(MANIFEST.files), {})


def test_a_file_that_is_written_to_while_it_is_read_is_wrong(volume: Volume) -> None:
    """Though the bytes that were read were right."""
    staging = volume.stage(MANIFEST)
    fill(staging)

    def rewrite(file: ManifestFile, _: int) -> None:
        if file.path == "config.json":
            (staging / "config.json").write_bytes(b"[]")

    assert verify(staging, MANIFEST.files, rewrite).wrong == [MANIFEST.files[0]]


def test_a_file_that_is_rewritten_after_it_was_read_is_not_what_is_recorded(volume: Volume) -> None:
    """READY.json has the stat that the right bytes had, so the next start looks again."""
    staging = volume.stage(MANIFEST)
    fill(staging)
    seen = stamps(staging)
    (staging / "config.json").unlink()
    (staging / "config.json").write_bytes(b"[]")

    snapshot = volume.publish(LOCK, seen, locked=False)

    record = ready.read(snapshot)
    assert record is not None
    assert [file.path for file in record.changed(snapshot)] == ["config.json"]


@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.ENOSPC, NoSpaceError, "free space"),
        (errno.EDQUOT, NoSpaceError, "free space"),
        (errno.EACCES, ConfigError, "chown -R"),
        (errno.EROFS, ConfigError, "read-write"),
        (errno.EIO, RetryableError, "check the disk"),
    ],
)
def test_an_error_of_the_disk_has_a_remedy(number: int, kind: type[JobError], remedy: str) -> None:
    """Each kind of failure gets its exit code and what to do."""
    error = explain(OSError(number, os.strerror(number), "/weights/x"), Path("/weights"))

    assert type(error) is kind
    assert remedy in str(error)


def test_a_withdrawn_snapshot_says_which_files_were_wrong(volume: Volume, tmp_path: Path) -> None:
    """The record goes, the wrong file is set aside, and the note stays until the snapshot is ready again."""
    snapshot = publish(volume)
    note = snapshot.with_name(f"{snapshot.name}.withdrawn.json")

    volume.withdraw(snapshot, MANIFEST.files[1:])

    assert ready.read(snapshot) is None
    assert json.loads(note.read_text()) == {"files": ["sub/deep/model.safetensors"]}
    assert [path.read_bytes() for path in tmp_path.glob(".quarantine/*/sub/deep/*")] == [b"weights"]
    assert not (snapshot / "sub/deep/model.safetensors").exists()
    publish(volume)
    assert not note.exists()
