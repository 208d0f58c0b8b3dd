"""A volume that hosts share: nothing depends on the kernel's locks, whoever comes or dies."""

import json
import time

import pytest

from tests.hub.server import Hub

from .conftest import SHARDS, Job, hashes

SHARD = next(iter(SHARDS))
BEAT_S = 0.4


@pytest.fixture(autouse=True)
def shared(job: Job) -> None:
    """Several hosts have it, and none trusts its locks."""
    job.settings |= {"MODEL_CACHE_VOLUME": "shared", "MODEL_CACHE_BEAT_S": str(BEAT_S)}


def test_jobs_of_several_hosts_make_one_transfer(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """One downloads, the others wait and find it done; nothing of theirs is left."""
    with job.start() as first, job.start() as second, job.start() as third:
        errors = [process.communicate(timeout=60)[1] for process in (first, second, third)]

    assert [first.returncode, second.returncode, third.returncode] == [0, 0, 0], errors
    assert hashes(job.link) == true_hashes
    assert sum(SHARD in request for request in hub.requests) == 1
    assert list((job.volume / ".staging").iterdir()) == []
    assert list((job.volume / ".locks").glob("*.owner*")) == []


def test_who_comes_after_a_dead_host_goes_on_with_its_download(
    job: Job, hub: Hub, true_hashes: dict[str, str]
) -> None:
    """Killed in the middle of a file: its heartbeat stops, and its part of the file is taken over."""
    hub.rate = 1_000_000
    with job.start() as process:
        while not any(path.stat().st_size > 500_000 for path in job.volume.glob(".staging/*/*.incomplete")):
            time.sleep(0.05)
            assert process.poll() is None
        process.kill()
    hub.rate = 0
    hub.requests.clear()

    outcome = job.run()

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes
    assert any("waiting: another weights job" in (line["remark"] or "") for line in outcome.lines)
    assert any(SHARD in request and "bytes=" in request for request in hub.requests)
    assert outcome.wall_s >= 5 * BEAT_S  # three of waiting, two of settling


def test_a_complete_snapshot_waits_for_nobody(job: Job) -> None:
    """A worker's start does not depend on who writes."""
    assert job.run().code == 0
    owner = next((job.volume / ".locks").glob("*.lock")).with_suffix(".owner")
    owner.write_text(json.dumps({"run": "0123456789ab", "host": "other", "beat": 1}))

    again = job.run()

    assert (again.code, [line["phase"] for line in again.lines]) == (0, ["ready"])
