"""A bit that rots on the volume: found, withdrawn, named, fetched again alone; no worker starts from it meanwhile."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import SLUG
from tests.e2e.stack import ROOT, Stack, wait_for
from tests.e2e.test_examples import run

SHARD, JOB = "model.safetensors", f"{SLUG}-weights"
FLIP = f"""
import os
path = "/weights/slugs/{SLUG}/{SHARD}"
old = os.stat(path)
with open(path, "r+b") as file:
    file.seek(1000)
    byte = file.read(1)[0]
    file.seek(1000)
    file.write(bytes([byte ^ 4]))
if KEEP:
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
"""
READY = f"print(open('/weights/slugs/{SLUG}/READY.json').read())"


def on_volume(stack: Stack, code: str) -> str:
    """Runs Python where the volume can be written to; returns what it prints."""
    words = ["run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "python3", JOB, "-c", code]
    return stack.compose("--profile", SLUG, *words).stdout


@pytest.fixture
def lock_file() -> Iterator[Path]:
    """Where `make lock-weights` writes; gone afterwards, since a twin's hashes belong in no slug."""
    path = ROOT / "docker" / SLUG / "weights.lock"
    assert not path.exists()
    yield path
    path.unlink(missing_ok=True)


def test_a_lock_is_written_and_heeded(stack: Stack, lock_file: Path) -> None:
    """Every file of the repository with its sha256; what is on the volume already is locked without a transfer."""
    done = run(ROOT / "scripts/lock-weights", SLUG)
    assert done.returncode == 0, done.stderr
    assert f"+ {SHARD}: " in done.stderr
    assert "commit it" in done.stdout
    lock = json.loads(lock_file.read_text())
    heeded = ["--env", f"MODEL_CACHE_LOCK_FILE=/etc/octet/docker/{SLUG}/weights.lock"]
    stack.compose("--profile", SLUG, "run", "--rm", "--no-deps", "--no-TTY", *heeded, JOB)
    record = json.loads(on_volume(stack, READY))
    assert (record["digest"], record["locked"]) == (lock["digest"], True)
    [line] = [one for one in run(ROOT / "scripts/weights").stdout.splitlines() if one.startswith(f"{SLUG}: ")]
    assert line.endswith(
        "as weights.lock says, verified {published_at}, unchanged since, held by a worker".format(**record)
    )


def test_a_bit_that_rotted_is_mended(stack: Stack) -> None:
    """No stat shows it; `make verify-weights` does, and all is right again before it ends."""
    on_volume(stack, FLIP.replace("KEEP", "True"))
    done = run(ROOT / "scripts/verify-weights")
    assert done.returncode == 0, done.stderr
    assert f"{SHARD} is corrupt" in done.stdout
    again = run(ROOT / "scripts/verify-weights", SLUG)
    assert (again.returncode, "corrupt" in again.stdout) == (0, False)


def test_what_a_worker_holds_is_not_pruned(stack: Stack) -> None:
    """Not even without its slug's link; the file that rotted goes."""
    link = f"/weights/slugs/{SLUG}"
    kept = on_volume(stack, f"import os; print(os.readlink('{link}')); os.remove('{link}')").strip()
    try:
        done = run(ROOT / "scripts/prune", YES="1")
    finally:
        on_volume(stack, f"import os; os.symlink({kept!r}, '{link}')")
    assert done.returncode == 0, done.stderr
    assert [line.split("/")[0] for line in done.stdout.splitlines()] == [".quarantine", ".quarantine"]
    assert on_volume(stack, READY)


@pytest.mark.full
@pytest.mark.parametrize("keep", [True, False], ids=["time-kept", "new-time"])
def test_no_worker_starts_from_a_corrupt_file(stack: Stack, keep: bool) -> None:
    """It waits and names the file, whoever found it; once that is fetched again it starts by itself."""
    stack.compose("stop", SLUG, "hub")
    try:
        on_volume(stack, FLIP.replace("KEEP", str(keep)))
        assert not keep or run(ROOT / "scripts/verify-weights", SLUG).returncode == 3
        # alone: `docker compose start` would run the weights job first, which mends it
        stack.container(SLUG).start()
        wait_for("a line that names it", lambda: f"{SHARD}" in refusals(stack), 60)
    finally:
        stack.compose("up", "-d", "--wait", "--no-deps", "hub")
        stack.compose("up", "-d", "--no-deps", JOB)
    assert stack.container(JOB).wait(timeout=60)["StatusCode"] == 0
    stack.wait_ready()


def refusals(stack: Stack) -> str:
    """What the launcher said of corrupt weights since the worker was started last."""
    started = stack.container(SLUG).attrs["State"]["StartedAt"]
    log = stack.compose("logs", "--no-log-prefix", "--since", started, SLUG).stdout
    return "\n".join(line for line in log.splitlines() if "corrupt" in line)
