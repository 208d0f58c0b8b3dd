"""Links that somebody planted on the volume: told by name, and what they lead to stays as it is."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.server import Hub

from .conftest import REPO, SHARDS, Job, hashes

SHARD = next(iter(SHARDS))
FLAT = REPO.replace("/", "--")


@pytest.fixture
def precious(job: Job) -> Path:
    """A file outside the volume, and a directory beside it with another."""
    folder = job.volume.parent / "outside"
    folder.mkdir()
    (folder / "within").write_bytes(b"within")
    place = job.volume.parent / "precious"
    place.write_bytes(b"precious")
    return place


def folder_link(name: str) -> Callable[[Job, str, Path], Path]:
    """The directory of that name is a link to one outside."""

    def plant(job: Job, _digest: str, precious: Path) -> Path:
        place = job.volume / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(precious.parent / "outside")
        return place

    return plant


def file_link(name: str) -> Callable[[Job, str, Path], Path]:
    """The file of that name is a link to one outside."""

    def plant(job: Job, digest: str, precious: Path) -> Path:
        place = job.volume / name.format(staging=f".staging/{FLAT}-{digest}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(precious)
        return place

    return plant


def staging_link(job: Job, digest: str, precious: Path) -> Path:
    return folder_link(f".staging/{FLAT}-{digest}")(job, digest, precious)


def snapshot_link(job: Job, digest: str, precious: Path) -> Path:
    return folder_link(f"models/{REPO}/{digest}")(job, digest, precious)


def linked_folder_in_staging(job: Job, digest: str, precious: Path) -> Path:
    return folder_link(f".staging/{FLAT}-{digest}/extra")(job, digest, precious)


PLANTS = {
    "the lock": file_link(f".locks/{FLAT}.lock"),
    "the directory of locks": folder_link(".locks"),
    "the directory of the SDK's locks": folder_link(".ms"),
    "the staging directory of all": folder_link(".staging"),
    "the staging directory": staging_link,
    "a directory in it": linked_folder_in_staging,
    "a part of a file": file_link("{staging}/" + SHARD + ".incomplete"),
    "a part in a directory": file_link("{staging}/extra/说明.md.incomplete"),
    "a part that the SDK fetches by range": file_link("{staging}/" + SHARD + "_0_999999"),
    "a file": file_link("{staging}/" + SHARD),
    "the models": folder_link("models"),
    "the snapshot": snapshot_link,
    "the draft of a record": file_link(f".staging/{FLAT}-READY.json"),
    "the draft of a lock": file_link(f".staging/{FLAT}-master.lock"),
}


@pytest.fixture(scope="module")
def digest(models: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the model that the hub has."""
    with Hub(models).running() as hub:
        job = Job(tmp_path_factory.mktemp("known") / "volume", hub.endpoint)
        assert job.run().code == 0
    return job.link.resolve().name


@pytest.mark.parametrize("plant", [pytest.param(plant, id=name) for name, plant in PLANTS.items()])
def test_a_planted_link_is_refused_by_name(
    job: Job,
    digest: str,
    precious: Path,
    true_hashes: dict[str, str],
    plant: Callable[[Job, str, Path], Path],
) -> None:
    """Exit 2 with its path; nothing outside was written."""
    place = plant(job, digest, precious)

    outcome = job.run()

    assert (outcome.code, outcome.stderr.count("\n")) == (2, 1), outcome.stderr
    assert f"{place} is a link" in outcome.stderr
    assert precious.read_bytes() == b"precious"
    assert os.listdir(precious.parent / "outside") == ["within"]


def test_once_the_link_is_gone_a_run_ends_well(
    job: Job, digest: str, precious: Path, true_hashes: dict[str, str]
) -> None:
    """Nothing else has to be tidied up."""
    place = PLANTS["a part of a file"](job, digest, precious)
    assert job.run().code == 2
    place.unlink()

    assert job.run().code == 0
    assert hashes(job.link) == true_hashes


def test_a_link_in_the_place_of_a_slug_is_replaced(
    job: Job, precious: Path, true_hashes: dict[str, str]
) -> None:
    """A slug is a link, wherever it led: it leads to the snapshot afterwards."""
    job.link.parent.mkdir(parents=True)
    job.link.symlink_to(precious.parent / "outside")

    assert job.run().code == 0
    assert hashes(job.link) == true_hashes
    assert os.listdir(precious.parent / "outside") == ["within"]


def test_prune_removes_links_and_not_what_they_lead_to(job: Job, precious: Path) -> None:
    """In the place of a snapshot, a download or what was set aside."""
    assert job.run().code == 0
    outside = precious.parent / "outside"
    (outside / "READY.json").write_text("precious")
    names = [f"models/{REPO}/0123456789abcdef", f".staging/{FLAT}-0123456789abcdef", ".quarantine/x"]
    for name in names:
        (job.volume / name).parent.mkdir(exist_ok=True)
        (job.volume / name).symlink_to(outside)
    old = 1_000_000_000
    for path in outside.iterdir():
        os.utime(path, (old, old))

    with job.start("-m", "model_cache", "prune", *names) as process:
        stdout, stderr = process.communicate(timeout=30)

    assert (process.returncode, stderr) == (0, "")
    assert stdout.count("removed") == 3
    assert sorted(os.listdir(outside)) == ["READY.json", "within"]
