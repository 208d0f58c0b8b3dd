"""A download that works: what lies on the volume afterwards, what a second run needs, what it says meanwhile."""

import contextlib
import hashlib
import json
import os
import pty
import shutil
import socket
import subprocess
import time
import urllib.request
from datetime import datetime
from http.client import HTTPException
from itertools import groupby
from pathlib import Path

from tests.hub.faults import Fault
from tests.hub.server import Hub

from .conftest import SHARDS, SLUG, Job, free_port, hashes

SHARD = next(iter(SHARDS))


def test_publishes_a_verified_snapshot(job: Job, true_hashes: dict[str, str]) -> None:
    """A clean run ends with exit 0 and every file of the hub, byte for byte, behind the slug's link."""
    outcome = job.run()

    assert (outcome.code, outcome.stderr) == (0, "")
    assert hashes(job.link) == true_hashes


def test_ready_json_describes_the_files_as_they_lie(job: Job, true_hashes: dict[str, str]) -> None:
    """READY.json holds the manifest, its digest, which names the directory, and each file's stat."""
    job.run()
    snapshot = job.link.resolve()
    ready = json.loads((snapshot / "READY.json").read_text(encoding="utf-8"))
    lines = "".join(f"{f['path']}\0{f['size']}\0{f['sha256']}\n" for f in ready["files"])

    assert {f["path"]: f["sha256"] for f in ready["files"]} == true_hashes
    assert ready["digest"] == hashlib.sha256(lines.encode()).hexdigest()
    assert snapshot.name == ready["digest"][:16]
    for file in ready["files"]:
        stat = (snapshot / file["path"]).stat()
        assert (stat.st_size, stat.st_mtime_ns, stat.st_ino) == (
            file["size"],
            file["mtime_ns"],
            file["inode"],
        )
    assert (ready["schema"], ready["repo"], ready["revision"]) == (1, "twins/tiny", "master")
    assert ready["bytes"] == sum(f["size"] for f in ready["files"])


def test_the_link_is_relative_and_staging_is_left_empty(job: Job) -> None:
    """The link holds wherever the volume is mounted, and nothing of the download stays behind."""
    job.run()

    assert os.readlink(job.link) == f"../models/twins/tiny/{job.link.resolve().name}"
    assert not any((job.volume / ".staging").iterdir())


def test_second_run_needs_no_hub_and_no_second(job: Job, hub: Hub) -> None:
    """With the hub gone, a complete snapshot is confirmed in under a second, without loading the SDK."""
    assert job.run().code == 0
    hub.stop()

    outcome = job.run("-X", "importtime", "-m", "model_cache")

    assert outcome.code == 0
    assert outcome.cpu_s < 1.0
    assert "model_cache.job" in outcome.stderr
    assert "modelscope" not in outcome.stderr


def test_only_listing_and_files_are_asked_for(job: Job, hub: Hub) -> None:
    """One listing and each file once: no probing of other sites, no acceleration look-up."""
    job.run()

    assert len(hub.requests) == 1 + len(hashes(job.link))
    assert all(request.startswith("/api/v1/models/twins/tiny/repo") for request in hub.requests)


def test_a_cut_connection_is_resumed(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """After a cut the same run carries on from the byte where it stopped, and counts the retry."""
    hub.faults.set(Fault("cut", SHARD, value=1_500_000, times=1))

    outcome = job.run()

    assert outcome.code == 0
    assert hashes(job.link) == true_hashes
    assert any("bytes=1500000-" in request for request in hub.requests)
    assert outcome.lines[-1]["retries"] == 1


def test_a_busy_hub_is_asked_again(job: Job, hub: Hub) -> None:
    """One 503 on the listing and one on a file cost two retries and nothing else."""
    hub.faults.set(Fault("status", "<listing>", 503, times=1), Fault("status", SHARD, 503, times=1))

    outcome = job.run()

    assert (outcome.code, outcome.lines[-1]["retries"]) == (0, 2)


def test_bytes_corrupted_once_are_fetched_again(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """A bit that flips on the wire once is healed within the run."""
    hub.faults.set(Fault("corrupt", SHARD, value=1_000_000, times=1))

    outcome = job.run()

    assert outcome.code == 0
    assert hashes(job.link) == true_hashes


def test_damage_after_publishing_is_mended(job: Job, hub: Hub, true_hashes: dict[str, str]) -> None:
    """A changed file in a published snapshot is noticed by its stat, and it alone is fetched again."""
    job.run()
    damaged = job.link / SHARD
    with damaged.open("r+b") as file:
        file.write(b"damage")
    hub.requests.clear()

    outcome = job.run()

    assert outcome.code == 0
    assert hashes(job.link) == true_hashes
    assert [SHARD in request for request in hub.requests] == [False, True]


def test_damage_that_cannot_be_mended_unpublishes(job: Job, hub: Hub) -> None:
    """Without the hub a damaged snapshot loses its READY.json: nothing may read it."""
    job.run()
    (job.link / SHARD).write_bytes(b"damage")
    hub.stop()

    outcome = job.run()

    assert outcome.code == 3
    assert job.published() == []


def test_a_copied_volume_is_verified_without_the_hub(job: Job, hub: Hub, tmp_path: Path) -> None:
    """Files with other inodes but right bytes are hashed once, recorded anew and trusted again."""
    job.run()
    hub.stop()
    moved = Job(tmp_path / "moved", hub.endpoint)
    shutil.copytree(job.volume, moved.volume, symlinks=True)

    first, second = moved.run(), moved.run()

    assert (first.code, second.code) == (0, 0)
    assert [line["phase"] for line in first.lines] == ["listing", "verifying", "ready"]
    assert [line["phase"] for line in second.lines] == ["ready"]


def test_a_second_slug_shares_the_snapshot(job: Job, hub: Hub) -> None:
    """Another slug of the same repository gets its link after a listing, without a transfer."""
    job.run()
    hub.requests.clear()

    outcome = job.run(MODEL_CACHE_SLUG="other-slug", MODEL_CACHE_REVISION="main")

    assert outcome.code == 0
    assert (job.volume / "slugs" / "other-slug").resolve() == job.link.resolve()
    assert len(hub.requests) == 1


def test_a_private_model_is_fetched_with_the_token(job: Job, hub: Hub, tmp_path: Path) -> None:
    """The token file's content is what the hub gets as bearer token."""
    hub.token = "secret-token"
    token_file = tmp_path / "token"
    token_file.write_text("secret-token\n")

    outcome = job.run(MODEL_CACHE_TOKEN_FILE=str(token_file))

    assert outcome.code == 0


def test_progress_is_told_while_bytes_move(job: Job, hub: Hub) -> None:
    """/progress and /metrics answer during the download with the numbers that the lines on stdout give."""
    hub.rate = 1_500_000
    port = free_port()
    with job.start(settings={"MODEL_CACHE_PORT": str(port)}) as process:
        assert process.stdout
        for line in process.stdout:
            state = json.loads(line)
            if state["phase"] == "downloading" and state["bytes_done"] > 0:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=30) as answer:
            polled = json.load(answer)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            metrics = answer.read().decode()
        process.communicate(timeout=30)

    total = sum(SHARDS.values())
    assert set(polled) == set(state) - {"time", "remark"}
    assert polled["phase"] == "downloading"
    assert 0 < polled["bytes_done"] < polled["bytes_total"]
    assert polled["bytes_total"] > total
    assert 0 < polled["rate_bytes_per_s"] < 4 * hub.rate
    assert polled["eta_s"] > 0
    assert f'model_cache_phase{{phase="downloading",repo="twins/tiny",slug="{SLUG}"}} 1.0' in metrics


def test_slow_connections_to_its_port_hold_up_nothing(job: Job, hub: Hub) -> None:
    """Six hundred beginnings of a request: progress is told all the same, and they take no threads."""
    hub.rate = 50_000
    port = free_port()
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(job.start(settings={"MODEL_CACHE_PORT": str(port)}))
        stack.callback(process.kill)
        assert process.stdout
        while '"downloading"' not in process.stdout.readline():
            assert process.poll() is None
        threads = Path(f"/proc/{process.pid}/task")
        before = len(list(threads.iterdir()))
        for _ in range(600):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            slow.sendall(b"GET /progress HTTP/1.1\r\nX-Slow: ")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=30) as answer:
            assert json.load(answer)["phase"] == "downloading"
        assert len(list(threads.iterdir())) < before + 50


def test_a_failure_is_seen_by_who_watches(job: Job, hub: Hub) -> None:
    """Prometheus asks every two seconds: a run that gives up in between stays until it has been told so."""
    hub.rate = 3_000_000
    hub.faults.set(Fault("corrupt", SHARD, value=5))
    port, seen = free_port(), ""
    with job.start(settings={"MODEL_CACHE_PORT": str(port)}, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError, HTTPException):  # before its beginning, behind its end
                seen = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
            time.sleep(0.2)
        process.communicate(timeout=30)
    assert process.returncode == 4
    assert f'model_cache_phase{{phase="failed",repo="twins/tiny",slug="{SLUG}"}} 1.0' in seen


def test_json_lines_follow_the_phases(job: Job) -> None:
    """A machine sees each phase once, in order, and at the end all bytes done."""
    outcome = job.run()

    phases = [phase for phase, _ in groupby(line["phase"] for line in outcome.lines)]
    assert phases == ["listing", "downloading", "verifying", "publishing", "ready"]
    assert outcome.lines[-1]["bytes_done"] == outcome.lines[-1]["bytes_total"] > 0


def test_a_download_takes_no_more_of_the_link_than_it_may(job: Job, true_hashes: dict[str, str]) -> None:
    """7 MB at 3.5 MB/s take two seconds, over all files and connections together."""
    outcome = job.run(MODEL_CACHE_MOST_BYTES_PER_S="3500000")

    begin, end = (next(line for line in lines if line["phase"] == phase) for lines, phase in (
        (outcome.lines, "downloading"), (outcome.lines, "publishing")))  # fmt: skip
    seconds = (datetime.fromisoformat(end["time"]) - datetime.fromisoformat(begin["time"])).total_seconds()
    assert outcome.code == 0
    assert hashes(job.link) == true_hashes
    assert seconds > 1.5


def test_a_person_at_a_terminal_sees_one_line_that_fills(job: Job, hub: Hub) -> None:
    """It is drawn over itself; phases and remarks stay."""
    hub.rate = 1_000_000
    ours, its = pty.openpty()
    with job.start(stdout=its) as process:
        os.close(its)
        seen = b""
        with contextlib.suppress(OSError):  # the other side of a pty has gone
            while piece := os.read(ours, 4096):
                seen += piece
    os.close(ours)

    assert process.returncode == 0
    assert b"\r\x1b[2Kdownloading   [####" in seen
    assert seen.rstrip().split(b"\r\x1b[2K")[-1].startswith(b"ready")
