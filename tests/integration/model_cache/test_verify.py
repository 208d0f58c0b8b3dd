"""Every byte of what is published is read: what is wrong is withdrawn first, then told, set aside and fetched alone."""

import json
import os
from pathlib import Path

import pytest

from tests.hub.server import Hub

from .conftest import SHARDS, SLUG, Job, hashes

SHARD = next(iter(SHARDS))
CRASH = str(Path(__file__).with_name("crash.py"))


def flip(path: Path) -> None:
    """A bit that rotted on the disk: same size, same time, same inode."""
    stat = path.stat()
    with path.open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture
def rotten(job: Job, hub: Hub) -> Job:
    """A published snapshot with one bit wrong, which no stat shows."""
    assert job.run().code == 0
    flip(job.link / SHARD)
    assert [line["phase"] for line in job.run().lines] == ["ready"]
    hub.requests.clear()
    return job


def test_a_flipped_bit_is_mended(rotten: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """The one file is named, kept aside, and fetched alone; the others are not moved."""
    others = {path.name: path.stat().st_ino for path in rotten.link.iterdir() if path.name != SHARD}
    outcome = rotten.run("-m", "model_cache", "verify")

    assert outcome.code == 0, outcome.stderr
    assert hashes(rotten.link) == true_hashes
    remarks = [line["remark"] or "" for line in outcome.lines]
    assert any(remark.startswith(f"{SHARD} is corrupt") for remark in remarks)
    assert [SHARD in request for request in hub.requests if "FilePath" in request] == [True]
    assert [path.name for path in rotten.volume.glob(".quarantine/*/*")] == [SHARD]
    after = {path.name: path.stat().st_ino for path in rotten.link.iterdir() if path.name in others}
    assert {name for name in others if others[name] != after[name]} == {"READY.json"}


def test_a_sound_snapshot_is_marked_anew(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """Every byte is read back and nothing is asked of the hub."""
    job.run()
    hub.stop()
    outcome = job.run("-m", "model_cache", "verify")

    assert outcome.code == 0
    verified = [line for line in outcome.lines if line["phase"] == "verifying"]
    assert verified[0]["bytes_total"] == sum(
        path.stat().st_size for path in map(job.link.joinpath, true_hashes)
    )
    assert hashes(job.link) == true_hashes


def test_without_the_hub_it_stays_withdrawn(
    rotten: Job, hub: Hub, models: Path, true_hashes: dict[str, str]
) -> None:
    """Exit 3: no worker may start from it, the note names the file, and a later run mends it."""
    hub.stop()
    outcome = rotten.run("-m", "model_cache", "verify")

    assert outcome.code == 3
    assert rotten.published() == []
    (note,) = rotten.volume.glob("models/*/*/*.withdrawn.json")
    assert json.loads(note.read_text()) == {"files": [SHARD]}
    with Hub(models).running() as again:
        assert rotten.run(MODEL_CACHE_ENDPOINT=again.endpoint).code == 0
    assert hashes(rotten.link) == true_hashes
    assert not note.exists()


def test_ready_goes_before_anything_else(rotten: Job) -> None:
    """Killed right after the first change to the volume: the record is gone, the wrong file still in its place."""
    assert rotten.run(CRASH, "2", "verify").code == 99
    assert rotten.published() == []
    assert (rotten.link / SHARD).exists()
    assert rotten.run().code == 0


def test_nothing_published_is_nothing_to_verify(job: Job) -> None:
    """Exit 2 with the command that fetches: hundreds of gigabytes do not come by surprise."""
    outcome = job.run_text("verify")

    assert outcome.returncode == 2
    assert f"docker compose up {SLUG}-weights" in outcome.stderr
