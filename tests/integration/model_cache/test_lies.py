"""A hub, or a cache before it, that says one thing and sends another: an error that names it, never a wrong byte."""

import os
import time
from pathlib import Path

import pytest

from tests.hub.faults import LISTING, Fault
from tests.hub.server import Hub

from .conftest import SHARDS, Job, hashes

SHARD = next(iter(SHARDS))
IMPATIENT = {"MODELSCOPE_DOWNLOAD_MAX_RETRIES": "1", "MODELSCOPE_DOWNLOAD_RETRY_MAX_DELAY_SECONDS": "1"}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("empty", SHARD),
        Fault("size", SHARD, value=SHARDS[SHARD] - 1),
        Fault("size", SHARD, value=SHARDS[SHARD] + 1),
        Fault("corrupt", SHARD, value=SHARDS[SHARD] - 1),
    ],
    ids=["no-byte", "listed-too-short", "listed-too-long", "last-byte"],
)
def test_bytes_that_are_not_those_listed(
    job: Job, hub: Hub, fault: Fault, true_hashes: dict[str, str]
) -> None:
    """Exit 4 with the file; once the hub tells the truth a rerun ends well."""
    hub.faults.set(fault)
    outcome = job.run(**IMPATIENT)

    assert outcome.code == 4, outcome.stderr
    assert SHARD in outcome.stderr
    assert job.published() == []
    hub.faults.set()
    assert job.run().code == 0
    assert hashes(job.link) == true_hashes


def test_a_file_that_changes_between_listing_and_download(tmp_path: Path) -> None:
    """A branch that moved meanwhile: other bytes of the same length are refused."""
    model = tmp_path / "models" / "twins" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"old weights")
    with Hub(tmp_path / "models").running() as hub:
        job = Job(tmp_path / "volume", hub.endpoint)
        hub.models.listing("twins/tiny", "", recursive=True)  # its hashes are kept, like a hub's
        change_unseen(model / "model.safetensors", b"new weights")
        outcome = job.run(**IMPATIENT)

    assert outcome.code == 4, outcome.stderr
    assert job.published() == []


def change_unseen(path: Path, content: bytes) -> None:
    """Other bytes, same length and time."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_hub_that_goes_silent(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """It stops in the middle of a file and keeps the connection: exit 3 in bounded time, and what came is kept."""
    hub.faults.set(Fault("stall", SHARD, value=1_000_000))
    started = time.monotonic()
    outcome = job.run(MODELSCOPE_DOWNLOAD_TIMEOUT="1", **IMPATIENT)

    assert outcome.code == 3, outcome.stderr
    assert time.monotonic() - started < 30
    hub.faults.set()
    hub.requests.clear()
    assert job.run().code == 0
    assert hashes(job.link) == true_hashes
    assert any(SHARD in request and "bytes=" in request for request in hub.requests)


def test_a_hub_that_drips(job: Job, hub: Hub) -> None:
    """A kilobyte a second would take years: it counts as broken once it was too slow for a while."""
    hub.rate = 1000
    outcome = job.run(MODEL_CACHE_PATIENCE_S="2", **IMPATIENT)

    assert outcome.code == 3, outcome.stderr
    assert "LEAST_BYTES_PER_S" in outcome.stderr
    assert outcome.wall_s < 40
    assert job.published() == []


def test_a_redirect_elsewhere_gets_no_token(
    job: Job, hub: Hub, models: Path, tmp_path: Path, true_hashes: dict[str, str]
) -> None:
    """Files may come from another host; the token stays with the hub that it is for."""
    token = tmp_path / "token"
    token.write_text("ms-secret")
    hub.token = "ms-secret"
    with Hub(models).running() as elsewhere:
        hub.faults.set(*(Fault("redirect", path, value=elsewhere.port) for path in true_hashes))
        outcome = job.run(MODEL_CACHE_TOKEN_FILE=str(token))

        assert outcome.code == 0, outcome.stderr
        assert hashes(job.link) == true_hashes
        assert len(elsewhere.requests) >= len(true_hashes)
        assert elsewhere.credentials == []
    assert any("ms-secret" in credential for credential in hub.credentials)
    assert "ms-secret" not in outcome.stderr + str(outcome.lines)


def test_names_that_differ_in_case_only(tmp_path: Path) -> None:
    """And a file of no bytes, listed without a sha256: the snapshot has them all, as the hub does."""
    model = tmp_path / "models" / "twins" / "tiny"
    model.mkdir(parents=True)
    for name, content in {
        "config.json": "{}",
        "README.md": "one",
        "readme.md": "another",
        "none.txt": "",
    }.items():
        (model / name).write_text(content)
    (model / "model.safetensors").write_bytes(b"weights")
    with Hub(tmp_path / "models").running() as hub:
        hub.faults.set(Fault("no-sha256", "none.txt"))
        job = Job(tmp_path / "volume", hub.endpoint)
        outcome = job.run()

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == hashes(model)


def test_a_listing_that_fails_once(job: Job, hub: Hub) -> None:
    """A busy hub is asked again, and then all is well."""
    hub.faults.set(Fault("status", LISTING, value=503, times=1))

    assert job.run().code == 0


@pytest.mark.full
def test_three_thousand_and_one_files(tmp_path: Path) -> None:
    """One more than a hub's page holds: none is missing."""
    model = tmp_path / "models" / "twins" / "tiny"
    (model / "parts").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    for number in range(2999):
        (model / "parts" / f"{number:04}.json").write_text(str(number))
    (model / "model.safetensors").write_bytes(b"weights")
    with Hub(tmp_path / "models").running() as hub:
        job = Job(tmp_path / "volume", hub.endpoint)
        outcome = job.run()

    assert outcome.code == 0, outcome.stderr
    assert hashes(job.link) == hashes(model)
    assert len(hashes(job.link)) == 3001
