"""What somebody wrote or planted on the volume: told in one sentence, never followed, and no other's loss."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.wrong_files import PLANTED, record, text, wrong_records

from .conftest import REPO, SLUG, Job, hashes

TOKEN = "between-us"
CHOSEN = (
    "objects 200,000 deep",
    "size is an infinite number",
    "a path that leaves the snapshot",
    "schema is None",
)
WRONG = {name: content for name, content in wrong_records() if name in CHOSEN}


def write(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


# each wrong record is a unit test of its reader: here are those that a process could hang or break on
FEW = ("objects 200,000 deep", "a pipe", "a link to a right record", "a directory")
WAYS = {name: write(content) for name, content in WRONG.items()} | PLANTED


@pytest.mark.parametrize("way", [pytest.param(WAYS[name], id=name) for name in FEW])
def test_a_wrong_record_is_written_anew(
    job: Job, true_hashes: dict[str, str], way: Callable[[Path], None]
) -> None:
    """The run says so, checks every file again, and ends well."""
    assert job.run().code == 0
    place = job.link.resolve() / "READY.json"
    place.unlink()
    way(place)

    outcome = job.run()

    assert (outcome.code, outcome.stderr) == (0, "")
    assert hashes(job.link) == true_hashes
    remarks = [line["remark"] for line in outcome.lines if "cannot be trusted" in (line["remark"] or "")]
    assert len(remarks) == 1
    assert len(remarks[0]) < 500
    assert [line["phase"] for line in job.run().lines] == ["ready"]


def test_a_path_that_leaves_the_volume_moves_nothing(job: Job) -> None:
    """Though its stat and its digest are right: `verify` does not take it for a file of the snapshot."""
    assert job.run().code == 0
    outside = job.volume.parent / "precious"
    outside.write_bytes(b"precious")
    snapshot = forged(job, "../../../../../precious", outside)

    job.run("-m", "model_cache", "verify", MODEL_CACHE_ENDPOINT="http://127.0.0.1:1")

    assert outside.read_bytes() == b"precious"
    assert list(job.volume.glob(".quarantine/**/precious")) == []
    assert snapshot.parent.parent.exists()


def forged(job: Job, path: str, outside: Path) -> Path:
    """A snapshot, linked, whose record names *outside* by *path*, with its stat but not its sha256."""
    stat = outside.stat()
    file = {
        "path": path,
        "size": stat.st_size,
        "sha256": "0" * 64,
        "mtime_ns": stat.st_mtime_ns,
        "inode": stat.st_ino,
    }
    document = record(file) | {"repo": REPO}
    snapshot = job.volume / "models" / REPO / str(document["digest"])[:16]
    snapshot.mkdir()
    (snapshot / "READY.json").write_bytes(text(document))
    job.link.unlink()
    job.link.symlink_to(f"../models/{REPO}/{snapshot.name}")
    return snapshot


@contextmanager
def serving(job: Job) -> Iterator[tuple[str, list[str]]]:
    """serve-weights over the job's volume: its address, and afterwards the lines that it wrote."""
    token, lines = job.volume.parent / "token", list[str]()
    token.write_text(TOKEN)
    settings = {"MODEL_CACHE_SERVE_TOKEN_FILE": str(token), "MODEL_CACHE_SERVE_PORT": "0"}
    with job.start("-m", "model_cache", "serve", settings=settings) as process:
        assert process.stdout
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}", lines
        process.send_signal(signal.SIGTERM)
        lines += process.stdout.readlines()
        assert process.wait(10) == 0
        assert process.stderr
        assert process.stderr.read() == ""


def ask(address: str, path: str) -> requests.Response:
    return requests.get(f"{address}{path}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)


def test_one_wrong_record_does_not_stop_the_others(job: Job) -> None:
    """serve-weights names each once, and goes on with the rest; files outside the volume are not handed out."""
    assert job.run().code == 0
    outside = job.volume.parent / "precious"
    outside.write_bytes(b"precious")
    for number, way in enumerate(WAYS.values()):
        folder = job.volume / f"models/owner/wrong-{number}/0123456789abcdef"
        folder.mkdir(parents=True)
        way(folder / "READY.json")
    leading_out = record(
        {
            "path": "precious",
            "size": 8,
            "sha256": "0" * 64,
            "mtime_ns": outside.stat().st_mtime_ns,
            "inode": outside.stat().st_ino,
        }
    )
    elsewhere = job.volume.parent / str(leading_out["digest"])[:16]
    elsewhere.mkdir()
    (elsewhere / "READY.json").write_bytes(text(leading_out))
    outside.rename(elsewhere / "precious")
    (job.volume / f"models/owner/wrong-0/{elsewhere.name}").symlink_to(elsewhere)
    with serving(job) as (address, lines):
        listed = ask(address, f"/v1/weights/{REPO}").json()
        for file in listed["files"]:
            assert len(ask(address, f"/v1/files/{file['sha256']}").content) == file["size"]
        assert ask(address, f"/v1/files/{'0' * 64}").status_code == 404
        assert ask(address, "/v1/weights/owner/name").status_code == 404
    problems = [line for line in lines if "cannot be trusted" in line]
    assert len(problems) == len(WAYS)


@pytest.mark.parametrize("way", [pytest.param(WAYS[name], id=name) for name in FEW[:2]])
def test_a_wrong_lock_on_the_volume_is_named(job: Job, way: Callable[[Path], None]) -> None:
    """What was listed at first use is what later runs go by: exit 2 with its name, if it is no lock."""
    assert job.run().code == 0
    place = next(job.volume.glob("models/*/*/master.lock"))
    place.unlink()
    way(place)

    outcome = job.run()

    assert (outcome.code, outcome.stderr.count("\n")) == (2, 1)
    assert str(place) in outcome.stderr


def test_the_inventory_names_what_is_wrong(job: Job) -> None:
    """A line for each slug, whatever lies behind its link."""
    assert job.run().code == 0
    place = job.link.resolve() / "READY.json"
    place.write_bytes(WRONG["objects 200,000 deep"])
    os.symlink("circle", job.link.with_name("circle"))

    outcome = job.run_inventory()

    assert outcome[0].startswith("circle: not verified")
    assert outcome[1].startswith(f"{SLUG}: not verified (READY.json: Invalid JSON")
    assert len(outcome) == 2


def test_a_wrong_record_is_not_exported(job: Job, tmp_path: Path) -> None:
    """Exit 4 with the command that mends it."""
    assert job.run().code == 0
    (job.link / "READY.json").write_bytes(WRONG["size is an infinite number"])

    with job.start("-m", "model_cache", "export", SLUG, str(tmp_path / "disk")) as process:
        _, stderr = process.communicate(timeout=30)

    assert (process.returncode, "make verify-weights" in stderr) == (4, True)
