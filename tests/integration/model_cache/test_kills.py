"""Killed at any moment, the job loses nothing and never leaves READY.json over wrong bytes."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.hub.server import Hub

from .conftest import Job, hashes
from .crash import CRASHED

CRASH = str(Path(__file__).with_name("crash.py"))


def assert_only_truth_is_published(job: Job, true_hashes: dict[str, str]) -> None:
    """Whatever claims to be ready is right, byte for byte."""
    for snapshot in job.published():
        assert hashes(snapshot) == true_hashes


def kill_repeatedly(count: int, hub: Hub, root: Path, true_hashes: dict[str, str]) -> None:
    """Kill the job *count* times at random moments; a volume that got complete is swapped for an empty one."""
    seed = time.time_ns()
    print(f"seed {seed}")  # pytest shows it with a failure
    chance = random.Random(seed)
    kills = runs = 0
    job = Job(root / "volume-0", hub.endpoint)
    while kills < count and runs < 5 * count:
        runs += 1
        # the slow hub puts kills into the middle of files, the fast one into verifying and publishing
        hub.rate = chance.choice([0, 1_000_000])
        kills += job.run_killed(chance.uniform(0.2, 1.0 if hub.rate == 0 else 2.0)) == -signal.SIGKILL
        assert_only_truth_is_published(job, true_hashes)
        if job.published():
            job = Job(root / f"volume-{runs}", hub.endpoint)
    assert kills == count
    hub.rate = 0
    assert job.run().code == 0
    assert hashes(job.link) == true_hashes


def test_five_kills_at_random_moments(hub: Hub, tmp_path: Path, true_hashes: dict[str, str]) -> None:
    """SIGKILL five times: after each one only truth is published, and the rerun ends with every sha256 right."""
    kill_repeatedly(5, hub, tmp_path, true_hashes)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_hundred_kills_at_random_moments(hub: Hub, tmp_path: Path, true_hashes: dict[str, str]) -> None:
    """The same, a hundred times."""
    kill_repeatedly(100, hub, tmp_path, true_hashes)


@pytest.mark.timeout(600)  # two dozen runs
def test_crash_before_each_change_of_the_volume(tmp_path: Path) -> None:
    """Whichever rename, link or removal a run dies before, the next run completes what it began."""
    model = tmp_path / "models" / "twins" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(1000))
    true_hashes = hashes(model)
    crashes = 0
    with Hub(tmp_path / "models").running() as hub:
        for change in range(1, 30):
            job = Job(tmp_path / f"volume-{change}", hub.endpoint)
            code = job.run(CRASH, str(change)).code
            assert_only_truth_is_published(job, true_hashes)
            assert code == 0 or (code, job.run().code) == (CRASHED, 0)
            assert hashes(job.link) == true_hashes
            if code == 0:
                break
            crashes += 1
    # a rename for each file, one for the lock, one to publish, one for READY.json, then the link and its rename
    assert crashes >= len(true_hashes) + 5


def test_a_download_resumes_where_it_was_killed(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """After a kill in mid-file the rerun asks for the rest of it only."""
    hub.rate = 200_000
    job.run_killed_with(".staging/*/*.safetensors.incomplete", 1)
    hub.rate = 0
    hub.requests.clear()

    outcome = job.run()

    assert outcome.code == 0
    assert hashes(job.link) == true_hashes
    assert any("bytes=" in request for request in hub.requests)


def test_a_large_file_resumes_each_of_its_parts(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """Files over a threshold come in parallel ranges; after a kill none of them starts over, and none stays behind."""
    job.settings |= {
        "MODELSCOPE_DOWNLOAD_PARALLEL_THRESHOLD_MB": "1",
        "MODELSCOPE_DOWNLOAD_PART_SIZE_MB": "1",
    }
    hub.rate = 100_000
    job.run_killed_with(".staging/*/*.safetensors_*", 4)
    parts = {path.name: path.stat().st_size for path in job.volume.glob(".staging/*/*.safetensors_*")}
    hub.rate = 0
    hub.requests.clear()

    outcome = job.run()

    assert outcome.code == 0
    assert hashes(job.link) == true_hashes
    assert len(parts) >= 4
    for name, size in parts.items():
        shard, begin, end = name.rsplit("_", 2)
        asked = [request for request in hub.requests if shard in request and request.endswith(f"-{end}")]
        complete = int(begin) + size > int(end)
        assert [f"bytes={int(begin) + size}-" in request for request in asked] == ([] if complete else [True])
    assert outcome.lines[-1]["bytes_done"] == outcome.lines[-1]["bytes_total"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_it_at_once(job: Job, hub: Hub, number: signal.Signals, code: int) -> None:
    """SIGTERM gives 143, SIGINT 130, each with one line; the download stays in staging for the next run."""
    hub.rate = 200_000
    with job.start() as process:
        assert process.stdout
        while '"downloading"' not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)

    assert process.returncode == code
    assert stderr == f"model-cache: stopped by {number.name}; run again to resume\n"
    assert job.published() == []


def test_two_jobs_on_one_volume_make_one_transfer(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """The second job waits for the first, says so, finds the snapshot complete and ends well too."""
    hub.rate = 2_000_000
    with job.start() as first, job.start() as second:
        outputs = [process.communicate(timeout=60)[0] for process in (first, second)]

    assert (first.returncode, second.returncode) == (0, 0)
    assert hashes(job.link) == true_hashes
    assert len(hub.requests) == 1 + len(true_hashes)
    assert sum("another weights job" in output for output in outputs) == 1


@pytest.mark.full
def test_twenty_jobs_on_one_volume_make_one_transfer(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """Twenty containers at once: each file is asked for once, and all of them end well."""
    running = [job.start() for _ in range(20)]
    for process in running:
        process.communicate(timeout=120)

    assert [process.returncode for process in running] == [0] * 20, hub.requests
    assert hashes(job.link) == true_hashes
    assert len(hub.requests) == 1 + len(true_hashes)
