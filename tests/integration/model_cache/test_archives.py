"""Weights go to a host without internet access in parts, disk by disk; there they are verified like any others."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.hub.server import Hub

from .conftest import SLUG, Job, hashes

MIB = 1 << 20


@pytest.fixture
def sender(job: Job) -> Job:
    """A host that has the weights."""
    assert job.run().code == 0
    return job


@pytest.fixture
def receiver(tmp_path: Path, hub: Hub) -> Job:
    """A host that reaches no hub."""
    return Job(tmp_path / "far", "http://127.0.0.1:1")


def export(job: Job, disk: Path, *numbers: int | str) -> "subprocess.CompletedProcess[str]":
    words = ("-m", "model_cache", "export", SLUG, str(disk), *map(str, numbers))
    with job.start(*words) as process:
        stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


def parts(disk: Path) -> list[Path]:
    return sorted(disk.glob(f"{SLUG}-*/part-*"))


def test_there_and_back(sender: Job, receiver: Job, tmp_path: Path, true_hashes: dict[str, str]) -> None:
    """Parts of one size, as sha256sum can check them; at the other end a verified snapshot, without a hub."""
    disk = tmp_path / "disk"
    done = export(sender, disk, MIB)
    outcome = receiver.run(MODEL_CACHE_IMPORT_DIR=str(disk))

    assert done.returncode == 0, done.stderr
    assert {path.stat().st_size for path in parts(disk)[:-1]} == {MIB}
    assert len(parts(disk)) == 7
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "parts.sha256"], cwd=parts(disk)[0].parent, check=False
    )
    assert checked.returncode == 0
    assert outcome.code == 0, outcome.stderr
    assert hashes(receiver.link) == true_hashes
    assert [line["phase"] for line in receiver.run().lines] == ["ready"]


def test_disk_by_disk(sender: Job, receiver: Job, tmp_path: Path, true_hashes: dict[str, str]) -> None:
    """Each import takes what its disk has and names the part that comes next; the last one publishes."""
    whole, first, second = tmp_path / "whole", tmp_path / "first", tmp_path / "second"
    export(sender, whole, 2 * MIB)
    for disk, numbers in ((first, [0, 2]), (second, [1, 3])):
        folder = disk / parts(whole)[0].parent.name
        folder.mkdir(parents=True)
        for path in [*parts(whole)[0].parent.iterdir()]:
            if not path.name.startswith("part-") or path in [parts(whole)[number] for number in numbers]:
                (folder / path.name).write_bytes(path.read_bytes())

    halfway = receiver.run(MODEL_CACHE_IMPORT_DIR=str(first))
    ending = receiver.run(MODEL_CACHE_IMPORT_DIR=str(second))

    assert halfway.code == 3
    assert "2 parts are on other disks, part-00002-of-00004 first" in halfway.stderr
    assert ending.code == 0, ending.stderr
    assert hashes(receiver.link) == true_hashes


def test_a_broken_off_export_goes_on(sender: Job, tmp_path: Path) -> None:
    """Parts that are there are not written again; FROM leaves the first ones to another disk."""
    disk = tmp_path / "disk"
    export(sender, disk, MIB, 3)
    before = {path.name: path.stat().st_ino for path in parts(disk)}
    assert sorted(before)[0] == "part-00003-of-00007"

    export(sender, disk, MIB)

    after = {path.name: path.stat().st_ino for path in parts(disk)}
    assert len(after) == 7
    assert before.items() <= after.items()


def test_a_damaged_part_is_named(sender: Job, receiver: Job, tmp_path: Path) -> None:
    """Exit 4, nothing published; the part exported anew mends it."""
    disk = tmp_path / "disk"
    export(sender, disk, MIB)
    damaged = parts(disk)[2]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    outcome = receiver.run(MODEL_CACHE_IMPORT_DIR=str(disk))

    assert outcome.code == 4
    assert damaged.name in outcome.stderr
    assert receiver.published() == []
    damaged.write_bytes(content)
    assert receiver.run(MODEL_CACHE_IMPORT_DIR=str(disk)).code == 0


def test_forged_parts_are_refused_by_the_lock(
    sender: Job, receiver: Job, tmp_path: Path, true_hashes: dict[str, str]
) -> None:
    """Whoever changes a part and its sum has the files' sha256 against him: exit 4. The true part heals it."""
    disk = tmp_path / "disk"
    export(sender, disk, MIB)
    forged, sums = parts(disk)[0], parts(disk)[0].with_name("parts.sha256")
    true, true_sums = forged.read_bytes(), sums.read_text()
    false = bytes(len(true))
    sums.write_text(true_sums.replace(hashlib.sha256(true).hexdigest(), hashlib.sha256(false).hexdigest()))
    forged.write_bytes(false)

    assert receiver.run(MODEL_CACHE_IMPORT_DIR=str(disk)).code == 4
    assert receiver.published() == []
    forged.write_bytes(true)
    sums.write_text(true_sums)
    assert receiver.run(MODEL_CACHE_IMPORT_DIR=str(disk)).code == 0
    assert hashes(receiver.link) == true_hashes


def test_an_export_of_other_weights_than_those_locked(sender: Job, receiver: Job, tmp_path: Path) -> None:
    """Exit 4: the lock in git says what may come, by whatever way."""
    disk, own = tmp_path / "disk", tmp_path / "weights.lock"
    export(sender, disk)
    lock = json.loads(next(disk.glob("*/weights.lock")).read_text())
    lock["files"][0]["sha256"] = "0" * 64
    lines = "".join(f"{f['path']}\0{f['size']}\0{f['sha256']}\n" for f in lock["files"])
    own.write_text(json.dumps(lock | {"digest": hashlib.sha256(lines.encode()).hexdigest()}))

    outcome = receiver.run(MODEL_CACHE_IMPORT_DIR=str(disk), MODEL_CACHE_LOCK_FILE=str(own))

    assert outcome.code == 4, outcome.stderr
    assert receiver.published() == []


@pytest.mark.parametrize("words", [("", ""), ("", "1"), (str(8 * MIB), "")])
def test_empty_words_stand_for_the_defaults(sender: Job, tmp_path: Path, words: tuple[str, str]) -> None:
    """As `make weights-export` passes what was not given."""
    done = export(sender, tmp_path / "disk", *words)
    assert (done.returncode, [path.name for path in parts(tmp_path / "disk")]) == (0, ["part-00001-of-00001"])


def test_a_wrong_part_on_one_of_several_disks_heals(
    sender: Job, receiver: Job, tmp_path: Path, true_hashes: dict[str, str]
) -> None:
    """The disks go in again, one after the other, and it ends well: what was wrong is not taken for unpacked."""
    whole, first, second = tmp_path / "whole", tmp_path / "first", tmp_path / "second"
    export(sender, whole, 4 * MIB)
    folder, (one, two) = parts(whole)[0].parent, parts(whole)
    for disk, part in ((first, one), (second, two)):
        (disk / folder.name).mkdir(parents=True)
        for path in folder.iterdir():
            if not path.name.startswith("part-") or path == part:
                (disk / folder.name / path.name).write_bytes(path.read_bytes())
    forge(first / folder.name / one.name)

    codes = [receiver.run(MODEL_CACHE_IMPORT_DIR=str(disk)).code for disk in (first, second)]
    (first / folder.name / one.name).write_bytes(one.read_bytes())
    (first / folder.name / "parts.sha256").write_bytes((folder / "parts.sha256").read_bytes())
    again = [receiver.run(MODEL_CACHE_IMPORT_DIR=str(disk)).code for disk in (first, second, first, second)]

    assert codes == [3, 3]
    assert 0 in again
    assert hashes(receiver.link) == true_hashes


def forge(part: Path) -> None:
    """Zeros, with a sum that fits them."""
    true, sums = part.read_bytes(), part.with_name("parts.sha256")
    false = bytes(len(true))
    old, new = (hashlib.sha256(content).hexdigest() for content in (true, false))
    sums.write_text(sums.read_text().replace(old, new))
    part.write_bytes(false)


def test_an_export_of_another_revision_is_refused(sender: Job, receiver: Job, tmp_path: Path) -> None:
    """Exit 2: what was exported is not called by another name."""
    export(sender, tmp_path / "disk")
    outcome = receiver.run(MODEL_CACHE_IMPORT_DIR=str(tmp_path / "disk"), MODEL_CACHE_REVISION="v2")
    assert (outcome.code, "not of" in outcome.stderr) == (2, True)


@pytest.mark.parametrize(
    ("numbers", "name"), [((1,), "PART_BYTES"), (("x",), "PART_BYTES"), ((MIB, 0), "FROM")]
)
def test_a_wrong_number_is_named(
    sender: Job, tmp_path: Path, numbers: tuple[int | str, ...], name: str
) -> None:
    """Exit 2."""
    done = export(sender, tmp_path / "disk", *numbers)
    assert (done.returncode, name in done.stderr) == (2, True)


def test_nothing_to_import(receiver: Job, tmp_path: Path) -> None:
    """Exit 2 that names the directory."""
    outcome = receiver.run(MODEL_CACHE_IMPORT_DIR=str(tmp_path))
    assert (outcome.code, str(tmp_path) in outcome.stderr) == (2, True)


def test_nothing_to_export(job: Job, tmp_path: Path) -> None:
    """Exit 2 with the command that fetches."""
    done = export(job, tmp_path / "disk")
    assert (done.returncode, "docker compose up" in done.stderr) == (2, True)
