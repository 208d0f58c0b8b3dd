"""States that a crash, an older version or a person may leave on the volume: a rerun always converges."""

import json
from collections.abc import Callable

import pytest

from .conftest import SHARDS, Job, hashes

SHARD = next(iter(SHARDS))


def without_record(job: Job) -> None:
    """Crashed after the rename."""
    (job.link / "READY.json").unlink()


def record_cut_short(job: Job) -> None:
    """A record that was not written whole."""
    record = job.link / "READY.json"
    record.write_text(record.read_text()[:100])


def record_of_other_content(job: Job) -> None:
    """A record whose digest is not that of its files."""
    record = job.link / "READY.json"
    document = json.loads(record.read_text())
    document["files"][0]["sha256"] = "0" * 64
    record.write_text(json.dumps(document))


def without_link(job: Job) -> None:
    """Crashed before the link."""
    job.link.unlink()


def link_to_nowhere(job: Job) -> None:
    """A snapshot that was removed by hand."""
    job.link.unlink()
    job.link.symlink_to("../models/twins/tiny/0000000000000000")


def staging_with_strays(job: Job) -> None:
    """Crashed before publishing, with parts of files that the SDK forgot."""
    snapshot = job.link.resolve()
    (snapshot / "READY.json").unlink()
    staging = job.volume / ".staging" / f"twins--tiny-{snapshot.name}"
    snapshot.rename(staging)
    (staging / f"{SHARD}_0_1000").write_bytes(b"part")
    (staging / "config.json.incomplete").write_bytes(b"{")
    (staging / "empty-directory").mkdir()


def staging_beside_snapshot(job: Job) -> None:
    """A staging directory next to a snapshot that lost its record."""
    without_record(job)
    (job.volume / ".staging" / f"twins--tiny-{job.link.resolve().name}").mkdir()


def staged_bytes_lost(job: Job) -> None:
    """A power cut: the right length, the wrong bytes, in a shard and in the shard index."""
    staging_with_strays(job)
    staging = next((job.volume / ".staging").glob("twins--tiny-*"))
    for name in (SHARD, "config.json"):
        size = (staging / name).stat().st_size
        (staging / name).write_bytes(bytes(size))


@pytest.mark.parametrize(
    "leave",
    [
        without_record,
        record_cut_short,
        record_of_other_content,
        without_link,
        link_to_nowhere,
        staging_with_strays,
        staging_beside_snapshot,
        staged_bytes_lost,
    ],
    ids=lambda leave: leave.__name__,
)
def test_a_rerun_converges(job: Job, leave: Callable[[Job], None], true_hashes: dict[str, str]) -> None:
    """Whatever was left, one rerun ends with the right files, and nothing else, behind the link."""
    job.run()
    leave(job)

    outcome = job.run()

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes
    assert not any((job.volume / ".staging").iterdir())
    assert [line["phase"] for line in job.run().lines] == ["ready"]


def test_a_damaged_shard_index_heals(job: Job, true_hashes: dict[str, str]) -> None:
    """An unreadable index of the right length is removed and fetched anew before anything else."""
    job.run()
    staging_with_strays(job)
    index = next((job.volume / ".staging").glob("twins--tiny-*")) / "model.safetensors.index.json"
    index.write_bytes(bytes(index.stat().st_size))

    assert job.run().code == 0
    assert hashes(job.link) == true_hashes
