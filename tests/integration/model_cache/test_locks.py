"""What is fetched is what was locked, in git or at first use; the hub's word alone never changes it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.hub.server import Hub

from .conftest import REPO, SLUG, Job, hashes

OLD, NEW = b"old weights", b"new weights"
CODE = "modeling_tiny.py"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model whose owner changes it now and then."""
    model = tmp_path / "models" / REPO
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(OLD)
    return model


@pytest.fixture
def hub(model: Path) -> Any:
    """A hub that serves it."""
    with Hub(model.parents[1]).running() as server:
        yield server


def lock(job: Job, path: Path) -> list[str]:
    """Write weights.lock from what the hub lists now; returns what is said of the changes."""
    outcome = job.run_text("lock", MODEL_CACHE_LOCK_FILE=str(path))
    assert outcome.returncode == 0, outcome.stderr
    path.write_text(outcome.stdout, encoding="utf-8")
    job.settings["MODEL_CACHE_LOCK_FILE"] = str(path)
    return outcome.stderr.splitlines()


def test_what_git_locks_is_fetched(job: Job, tmp_path: Path) -> None:
    """READY.json says that it was locked, nothing else is recorded, and a rerun does without the hub."""
    lock(job, tmp_path / "weights.lock")
    first, second = job.run(), job.run()

    assert (first.code, second.code) == (0, 0), first.stderr
    assert json.loads((job.link / "READY.json").read_text())["locked"]
    assert list(job.volume.glob("models/*/*/*.lock")) == []
    assert [line["phase"] for line in second.lines] == ["ready"]


def test_a_repository_that_changed_since_is_refused(job: Job, hub: Hub, model: Path, tmp_path: Path) -> None:
    """Exit 4 with the file and the way on, before any file; the new lock shows what changed, and is fetched."""
    lock(job, tmp_path / "weights.lock")
    (model / "model.safetensors").write_bytes(NEW)
    hub.requests.clear()

    refused = job.run()
    changes = lock(job, tmp_path / "weights.lock")

    assert refused.code == 4
    assert "model.safetensors" in refused.stderr
    assert f"make lock-weights MODEL={SLUG}" in refused.stderr
    assert not any("FilePath" in request for request in hub.requests[:1])
    assert [line[:21] for line in changes if line[0] in "+-~"] == ["~ model.safetensors: "]
    assert job.run().code == 0
    assert (job.link / "model.safetensors").read_bytes() == NEW


def test_a_new_lock_is_a_new_snapshot(job: Job, model: Path, tmp_path: Path) -> None:
    """The old one stays where it is, for the workers that run on it."""
    lock(job, tmp_path / "weights.lock")
    job.run()
    old = job.link.resolve()
    (model / "model.safetensors").write_bytes(NEW)
    lock(job, tmp_path / "weights.lock")

    assert job.run().code == 0
    assert (old / "model.safetensors").read_bytes() == OLD
    assert (job.link / "model.safetensors").read_bytes() == NEW
    assert len(job.published()) == 2


def test_an_old_lock_leads_back_without_the_hub(job: Job, hub: Hub, model: Path, tmp_path: Path) -> None:
    """A git revert of weights.lock is a roll-back: the snapshot is still there."""
    before, after = tmp_path / "before.lock", tmp_path / "after.lock"
    lock(job, before)
    job.run()
    (model / "model.safetensors").write_bytes(NEW)
    lock(job, after)
    job.run()
    hub.stop()
    job.settings["MODEL_CACHE_LOCK_FILE"] = str(before)

    assert job.run().code == 0
    assert (job.link / "model.safetensors").read_bytes() == OLD


def test_the_first_use_is_recorded(job: Job, model: Path) -> None:
    """Without weights.lock the job says whom it trusts; a branch that moves later is not followed."""
    first = job.run()
    (model / "model.safetensors").write_bytes(NEW)
    job.link.unlink()

    again = job.run()

    assert any("trusted at first use" in (line["remark"] or "") for line in first.lines)
    assert len(list(job.volume.glob("models/*/*/master.lock"))) == 1
    assert again.code == 0
    assert (job.link / "model.safetensors").read_bytes() == OLD


def test_damage_after_a_branch_moved_is_not_mended_with_other_bytes(job: Job, model: Path) -> None:
    """The recorded file is gone from the hub: exit 4, and the damaged snapshot stays withdrawn."""
    job.run()
    (model / "model.safetensors").write_bytes(NEW)
    os.chmod(job.link / "model.safetensors", 0o644)
    (job.link / "model.safetensors").write_bytes(b"bad")

    outcome = job.run()

    assert outcome.code == 4
    assert "model.safetensors" in outcome.stderr
    assert job.published() == []


def test_a_lock_of_something_else_is_refused(job: Job, tmp_path: Path) -> None:
    """Exit 2: model.env and weights.lock must name the same repository and revision."""
    lock(job, tmp_path / "weights.lock")
    outcome = job.run(MODEL_CACHE_REVISION="main")

    assert outcome.code == 2
    assert "make lock-weights" in outcome.stderr


def test_the_unquantised_weights_have_no_lock(job: Job, model: Path, tmp_path: Path) -> None:
    """The slug's lock is of its published weights."""
    lock(job, tmp_path / "weights.lock")
    online = {"MODEL_CACHE_SOURCE": "online", "MODEL_CACHE_ONLINE_REPO": "twins/online"}
    model.rename(model.with_name("online"))

    outcome = job.run(**online)

    assert outcome.code == 0, outcome.stderr
    assert any("trusted at first use" in (line["remark"] or "") for line in outcome.lines)


@pytest.mark.parametrize("trusted", [False, True])
def test_repository_code_comes_only_where_the_card_trusts_it(
    job: Job, model: Path, tmp_path: Path, trusted: bool
) -> None:
    """Its hash is printed; a pickle is left out either way."""
    (model / CODE).write_text("print('hello')")
    (model / "pytorch_model.bin").write_bytes(b"a pickle")
    card = tmp_path / "card.yaml"
    card.write_text(f"weights: {{trust_remote_code: {str(trusted).lower()}}}")

    outcome = job.run(MODEL_CACHE_CARD_FILE=str(card))

    remarks = [line["remark"] or "" for line in outcome.lines]
    assert outcome.code == 0
    assert set(hashes(job.link)) == {"config.json", "model.safetensors"} | ({CODE} if trusted else set())
    assert any(CODE in line and ("sha256" in line) == trusted for line in remarks)
    assert any("left out" in line and "pytorch_model.bin" in line for line in remarks)


def test_locked_code_is_fetched_by_name_and_hash(job: Job, model: Path, tmp_path: Path) -> None:
    """What the lock names was decided when it was made, whatever the card says by now."""
    (model / CODE).write_text("print('hello')")
    card = tmp_path / "card.yaml"
    card.write_text("weights: {trust_remote_code: true}")
    job.settings["MODEL_CACHE_CARD_FILE"] = str(card)
    lock(job, tmp_path / "weights.lock")
    (model / "other.py").write_text("print('never locked')")
    del job.settings["MODEL_CACHE_CARD_FILE"]

    assert job.run().code == 0
    assert set(hashes(job.link)) == {"config.json", "model.safetensors", CODE}


def test_what_is_published_is_verified_whatever_is_asked_for_next(
    job: Job, model: Path, tmp_path: Path
) -> None:
    """A lock that came since, of other content, changes neither what is read nor what READY.json calls it."""
    job.run()
    (model / "model.safetensors").write_bytes(NEW)
    lock(job, tmp_path / "weights.lock")

    outcome = job.run("-m", "model_cache", "verify", MODEL_CACHE_REVISION="master")

    record = json.loads((job.link / "READY.json").read_text())
    assert outcome.code == 0, outcome.stderr
    assert (record["revision"], record["locked"]) == ("master", False)
    assert (job.link / "model.safetensors").read_bytes() == OLD


def test_a_lock_that_came_later_is_noted(job: Job, hub: Hub, tmp_path: Path) -> None:
    """What was trusted at first use and is what the lock says is locked from then on, without the hub."""
    job.run()
    lock(job, tmp_path / "weights.lock")
    hub.stop()

    assert job.run().code == 0
    assert json.loads((job.link / "READY.json").read_text())["locked"]
    assert [line["phase"] for line in job.run().lines] == ["ready"]
