"""What is removed from the volume is what nobody refers to; what somebody has stays."""

import os
from pathlib import Path

import pytest

from launcher.resources.snapshot_lock import SnapshotLock
from launcher.resources.weights import WeightsError
from model_cache.commands.prune import STALE_S, leftovers, remove, show
from model_cache.storage.snapshot_lock import exclusive

NOW = 2_000_000_000.0
OLD, NEW = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Two snapshots, of which a slug links to the new one; a download broken off long ago, and a wrong file."""
    for path in (
        f"models/owner/name/{OLD}/model.safetensors",
        f"models/owner/name/{OLD}/READY.json",
        f"models/owner/name/{NEW}/READY.json",
        f".staging/owner--name-{OLD}/part",
        f".quarantine/owner--name-{OLD}/sub/model.safetensors",
        ".locks/owner--name.lock",
        "models/owner/name/master.lock",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"12345")
        os.utime(tmp_path / path, (NOW, NOW))
    (tmp_path / "slugs").mkdir()
    (tmp_path / "slugs/tiny").symlink_to(f"../models/owner/name/{NEW}")
    return tmp_path


def found(volume: Path, now: float = NOW) -> set[str]:
    return {str(one.path.relative_to(volume)) for one in leftovers(volume, now)}


def test_what_nobody_refers_to_is_shown(volume: Path) -> None:
    """The linked snapshot, locks and notes are not among it; a fresh download neither."""
    old, aside = f"models/owner/name/{OLD}", f".quarantine/owner--name-{OLD}"
    assert found(volume) == {old, aside}
    assert found(volume, NOW + STALE_S + 1) == {old, aside, f".staging/owner--name-{OLD}"}
    assert f"{old}  10 B  no slug links to it" in list(show(volume, leftovers(volume, NOW)))


def test_what_is_signed_for_stays(volume: Path) -> None:
    """By a run of any host, whose locks are not seen here."""
    (volume / ".locks/owner--name.owner").write_text("{}")
    assert found(volume, NOW + STALE_S + 1) == {f".quarantine/owner--name-{OLD}"}


def test_on_a_shared_volume_no_snapshot_is_removed(volume: Path) -> None:
    """A worker of another host may hold it; what was broken off or set aside goes."""
    paths = {one.path.parent.name for one in leftovers(volume, NOW + STALE_S + 1, shared=True)}
    assert paths == {".staging", ".quarantine"}


def test_it_is_removed(volume: Path) -> None:
    """And nothing else is."""
    assert all(remove(volume, one) for one in leftovers(volume, NOW + STALE_S + 1))
    assert found(volume, NOW + STALE_S + 1) == set()
    left = {path.relative_to(volume).as_posix() for path in volume.rglob("*") if path.is_file()}
    assert left == {
        f"models/owner/name/{NEW}/READY.json",
        ".locks/owner--name.lock",
        "models/owner/name/master.lock",
    }


def test_what_a_worker_holds_stays(volume: Path) -> None:
    """Even if it took it between the showing and the removing; with the worker the hold is gone."""
    (old,) = (one for one in leftovers(volume, NOW) if one.path.name == OLD)
    hold = SnapshotLock()
    hold.take(old.path)
    assert f"models/owner/name/{OLD}" not in found(volume)
    assert not remove(volume, old)
    assert (old.path / "READY.json").exists()
    hold.release()
    assert remove(volume, old)


def test_what_a_weights_job_may_write_stays(volume: Path) -> None:
    """While somebody has the repository's write lock, its snapshots and downloads are left alone."""
    with exclusive(volume / ".locks/owner--name.lock"):
        assert found(volume, NOW + STALE_S + 1) == {f".quarantine/owner--name-{OLD}"}


def test_a_worker_does_not_start_from_what_is_being_removed(volume: Path) -> None:
    """It says so, and looks again."""
    snapshot = volume / "models/owner/name" / OLD
    with exclusive(snapshot), pytest.raises(WeightsError, match="being removed"):
        SnapshotLock().take(snapshot)
