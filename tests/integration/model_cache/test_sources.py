"""Where the hub fails, others bring the files: every byte is verified by the same hashes, whoever sent it."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.hub.faults import Fault
from tests.hub.server import Hub

from .conftest import REPO, SHARDS, Job, hashes

SHARD = next(iter(SHARDS))
TOKEN = "between-us"
IMPATIENT = {"MODELSCOPE_DOWNLOAD_MAX_RETRIES": "1", "MODELSCOPE_DOWNLOAD_RETRY_MAX_DELAY_SECONDS": "1"}


@pytest.fixture
def lock(job: Job, tmp_path: Path) -> Path:
    """What the hub listed while it was well, as the job's weights.lock."""
    path = tmp_path / "weights.lock"
    path.write_text(job.run_text("lock").stdout, encoding="utf-8")
    job.settings["MODEL_CACHE_LOCK_FILE"] = str(path)
    return path


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "node-token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture
def node(tmp_path: Path, hub: Hub, token_file: Path) -> Iterator[str]:
    """Another node that has the weights, and serves them; yields its address."""
    other = Job(tmp_path / "other-volume", hub.endpoint)
    assert other.run().code == 0
    serving = {"MODEL_CACHE_SERVE_TOKEN_FILE": str(token_file), "MODEL_CACHE_SERVE_PORT": "0"}
    with other.start("-m", "model_cache", "serve", settings=serving) as process:
        assert process.stdout
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert TOKEN not in process.stdout.read()


def fall_back(job: Job, *fallbacks: str, **settings: str) -> None:
    job.settings |= {"MODEL_CACHE_FALLBACKS": " ".join(fallbacks), **settings}


def test_another_node_stands_in_for_the_hub(
    job: Job, hub: Hub, node: str, token_file: Path, true_hashes: dict[str, str]
) -> None:
    """With the hub gone and nothing locked its listing counts at first use, and its files are the right ones."""
    hub.stop()
    fall_back(job, f"node:{node}", MODEL_CACHE_NODE_TOKEN_FILE=str(token_file))

    outcome = job.run()

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes
    assert any(f"going on with {node}" in (line["remark"] or "") for line in outcome.lines)


def test_a_node_wants_its_token(job: Job, hub: Hub, node: str, lock: Path, tmp_path: Path) -> None:
    """Exit 3 with the hub's own error, which came first; the node's refusal is told too."""
    wrong = tmp_path / "wrong"
    wrong.write_text("guessed")
    fall_back(job, f"node:{node}", MODEL_CACHE_NODE_TOKEN_FILE=str(wrong))
    hub.stop()

    outcome = job.run()

    assert outcome.code == 3
    assert job.published() == []
    assert requests.get(f"{node}/v1/weights/{REPO}", timeout=30).status_code == 401
    assert requests.get(f"{node}/health", timeout=30).status_code == 200


def test_a_node_serves_nothing_that_changed_since_it_was_verified(
    job: Job, hub: Hub, node: str, token_file: Path, lock: Path, tmp_path: Path
) -> None:
    """Its own file is suspect: it is not there for others, and the hub's error stays the reason."""
    shard = next((tmp_path / "other-volume").glob(f"models/*/*/*/{SHARD}"))
    os.utime(shard, ns=(1, 1))
    fall_back(job, f"node:{node}", MODEL_CACHE_NODE_TOKEN_FILE=str(token_file))
    hub.stop()

    outcome = job.run()

    assert outcome.code == 3, outcome.stderr
    assert job.published() == []


def test_a_hugging_face_hub_brings_what_is_locked(
    job: Job, hub: Hub, models: Path, lock: Path, true_hashes: dict[str, str]
) -> None:
    """It lists no sha256 of small files, so it can stand in only where a lock says what is right."""
    with Hub(models).running() as other:
        fall_back(job, f"hf:{other.endpoint}")
        hub.stop()
        outcome = job.run()

        assert outcome.code == 0, outcome.stderr
        assert hashes(job.link) == true_hashes
        assert all("/resolve/main/" in request for request in other.requests)


def test_without_a_lock_it_cannot(job: Job, hub: Hub, models: Path) -> None:
    """Exit 6 that asks for one."""
    with Hub(models).running() as other:
        fall_back(job, f"hf:{other.endpoint}")
        hub.stop()
        outcome = job.run()

    assert outcome.code == 6
    assert "make lock-weights" in outcome.stderr


def test_wrong_bytes_of_a_stand_in_are_never_published(job: Job, hub: Hub, models: Path, lock: Path) -> None:
    """Exit 4, whoever sent them."""
    with Hub(models).running() as other:
        other.faults.set(Fault("corrupt", SHARD, value=5))
        fall_back(job, f"hf:{other.endpoint}")
        hub.stop()
        outcome = job.run()

    assert outcome.code == 4, outcome.stderr
    assert job.published() == []


def test_who_sends_wrong_bytes_is_not_asked_again(
    job: Job, hub: Hub, models: Path, lock: Path, true_hashes: dict[str, str]
) -> None:
    """The next one brings that file alone."""
    with Hub(models).running() as liar, Hub(models).running() as other:
        liar.faults.set(Fault("corrupt", SHARD, value=5))
        fall_back(job, f"hf:{liar.endpoint}", f"hf:{other.endpoint}")
        hub.stop()
        outcome = job.run()

        assert outcome.code == 0, outcome.stderr
        assert hashes(job.link) == true_hashes
        assert [SHARD in request for request in other.requests] == [True]


def test_a_node_that_knows_no_such_listing_has_the_files(
    job: Job, hub: Hub, node: str, token_file: Path, tmp_path: Path, true_hashes: dict[str, str]
) -> None:
    """What is locked is asked for by content: under which revision the node has it does not matter."""
    path = tmp_path / "weights.lock"
    text = job.run_text("lock").stdout.replace('"revision": "master"', '"revision": "v2"')
    path.write_text(text, encoding="utf-8")
    fall_back(job, f"node:{node}", MODEL_CACHE_NODE_TOKEN_FILE=str(token_file), MODEL_CACHE_REVISION="v2")
    hub.stop()
    outcome = job.run(MODEL_CACHE_LOCK_FILE=str(path))

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == true_hashes


def test_a_hub_that_breaks_off_is_helped_out(
    job: Job, hub: Hub, models: Path, true_hashes: dict[str, str]
) -> None:
    """What it has sent stays; the rest comes from the next, from where it broke off."""
    hub.faults.set(Fault("cut", SHARD, value=1_000_000))
    with Hub(models).running() as other:
        fall_back(job, f"hf:{other.endpoint}")
        outcome = job.run(**IMPATIENT)

        assert outcome.code == 0, outcome.stderr
        assert hashes(job.link) == true_hashes
        assert [SHARD in request and "bytes=" in request for request in other.requests] == [True]


def test_a_stand_in_that_breaks_off_is_resumed(
    job: Job, hub: Hub, models: Path, lock: Path, true_hashes: dict[str, str]
) -> None:
    """By range, within the run."""
    with Hub(models).running() as other:
        other.faults.set(Fault("cut", SHARD, value=1_000_000, times=2))
        fall_back(job, f"hf:{other.endpoint}")
        hub.stop()
        outcome = job.run()

        assert outcome.code == 0, outcome.stderr
        assert hashes(job.link) == true_hashes
        assert sum("bytes=" in request for request in other.requests) == 2


def test_a_carried_disk(job: Job, hub: Hub, models: Path, lock: Path, true_hashes: dict[str, str]) -> None:
    """A directory with the files, under the repository's name or not."""
    hub.stop()
    fall_back(job, f"dir:{models}")

    assert job.run().code == 0
    assert hashes(job.link) == true_hashes


def test_what_a_carried_disk_lacks_comes_from_the_next(
    job: Job, hub: Hub, models: Path, lock: Path, tmp_path: Path, true_hashes: dict[str, str]
) -> None:
    """Each source is asked for what the ones before it did not bring."""
    disk = tmp_path / "disk"
    shutil.copytree(models / REPO, disk)
    (disk / SHARD).unlink()
    with Hub(models).running() as other:
        fall_back(job, f"dir:{disk}", f"hf:{other.endpoint}")
        hub.stop()

        assert job.run().code == 0
        assert len(other.requests) == 1
    assert hashes(job.link) == true_hashes


def test_an_older_carried_disk_is_passed_over(
    job: Job, hub: Hub, models: Path, lock: Path, tmp_path: Path, true_hashes: dict[str, str]
) -> None:
    """A file of another size is another version's: the next one brings it; likewise an index of the same size."""
    disk = tmp_path / "disk"
    shutil.copytree(models / REPO, disk)
    (disk / "config.json").write_text("{}")
    index = disk / "model.safetensors.index.json"
    index.write_bytes(bytes(index.stat().st_size))
    with Hub(models).running() as other:
        fall_back(job, f"dir:{disk}", f"hf:{other.endpoint}")
        hub.stop()
        outcome = job.run()

        assert outcome.code == 0, outcome.stderr
        assert hashes(job.link) == true_hashes
        assert all(name in " ".join(other.requests) for name in ("config.json", index.name))


def test_a_carried_disk_with_links_in_a_circle(job: Job, hub: Hub, lock: Path, tmp_path: Path) -> None:
    """What cannot be read there is not there: the hub's own error stays the reason."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "config.json").symlink_to(disk / "config.json")
    fall_back(job, f"dir:{disk}")
    hub.stop()

    assert job.run().code == 3


@pytest.mark.parametrize("wrong", ["ftp:x", "hf:modelscope.cn", "dir:relative", "http://hub"])
def test_a_fallback_that_is_none_is_named(job: Job, wrong: str) -> None:
    """Exit 2 with what may stand there."""
    fall_back(job, wrong)
    outcome = job.run()

    assert outcome.code == 2
    assert "MODEL_CACHE_FALLBACKS" in outcome.stderr


def test_weights_are_not_served_without_a_token(job: Job) -> None:
    """Exit 2: nothing is served openly by mistake."""
    with job.start("-m", "model_cache", "serve") as process:
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == 2
    assert "MODEL_CACHE_SERVE_TOKEN_FILE" in stderr
