"""vLLM starts only on weights that are in order, and by itself once they are."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from launcher.engine.admission import MIDDLEWARE
from tests.integration.launcher.harness import SLUG, Site, Worker

Start = Callable[..., Worker]
SHARD = "sub/model.safetensors"


def test_a_worker_starts_on_a_published_snapshot(site: Site, start: Start) -> None:
    """vLLM gets the real path, our own options, then the container's words; every phase is logged once."""
    snapshot = site.publish()
    site.settings["LAUNCHER_SERVE_CONFIG"] = "/etc/octet/serve.yaml"
    worker = start()
    ready = worker.wait_event("phase", phase="ready")
    assert ready["start_s"] > 0
    ours = f"--config /etc/octet/serve.yaml --host 0.0.0.0 --port {site.port} --middleware {MIDDLEWARE}"
    assert f"words: {snapshot} {ours}" in worker.out
    phases = [event["phase"] for event in worker.events("phase")]
    assert phases == ["starting", "loading", "compiling", "warm-up", "ready"]
    assert {event["slug"] for event in worker.events("phase")} == {SLUG}


def test_vllms_lines_pass_through_untouched(site: Site, start: Start) -> None:
    """Standard output stays standard output, error stays error, neither is wrapped."""
    snapshot = site.publish()
    site.options = ("--rank",)
    worker = start()
    worker.wait_event("phase", phase="ready")
    line = f"(EngineCore pid=7) INFO 11-20 20:00:00 [cpu_model_runner.py:68] Starting to load model {snapshot}..."
    assert line in worker.out
    assert int(worker.wait_error_line("rank: ")) > 0
    assert not any(line.startswith("rank: ") for line in worker.out)


def test_a_worker_waits_for_its_weights_and_starts_by_itself(site: Site, start: Start) -> None:
    """One line names what is missing and the command that mends it; then it is quiet until mended."""
    worker = start()
    said = worker.wait_event("weights-not-ready")
    assert said["problem"] == f"{site.weights}/slugs/{SLUG} is missing"
    assert said["mend"] == f"docker compose up {SLUG}-weights"
    site.publish()
    worker.wait_event("phase", phase="ready")
    assert len(worker.events("weights-not-ready")) == 1


def test_a_worker_waits_for_a_volume_that_it_may_not_read(site: Site, start: Start) -> None:
    """As one that root prepared; no traceback, and once its rights are mended vLLM starts."""
    site.publish()
    slugs = site.weights / "slugs"
    slugs.chmod(0)
    worker = start(prefix=() if os.geteuid() else ("setpriv", "--bounding-set=-all"))  # root reads anything
    said = worker.wait_event("weights-not-ready")
    assert said["problem"] == f"{slugs}/{SLUG} cannot be read: Permission denied"
    slugs.chmod(0o755)
    worker.wait_event("phase", phase="ready")
    assert worker.events("weights-not-ready") == [said]
    assert worker.err == []


def test_a_slug_without_ready_file_is_not_served(site: Site, start: Start) -> None:
    """A link alone proves nothing: READY.json is what counts."""
    ready = site.publish() / "READY.json"
    aside = ready.rename(ready.with_name("aside"))
    worker = start()
    said = worker.wait_event("weights-not-ready")
    assert said["problem"] == f"{ready} cannot be read: No such file or directory"
    assert worker.events("phase") == []
    aside.rename(ready)
    worker.wait_event("phase", phase="ready")


def test_the_same_problem_is_said_once_however_often_it_is_found(site: Site, start: Start) -> None:
    """A file that changes without ever being right is hashed each time, which the log tells of each check."""
    shard = site.publish() / SHARD
    right = shard.read_bytes()
    shard.write_bytes(right[:-1] + b"\0")
    os.utime(shard, ns=(1, 1))
    worker = start()
    for moment in range(2, 5):  # told as each check begins: two have come to their end then
        worker.wait_event("weights-hash")
        os.utime(shard, ns=(moment, moment))
    mended = shard.with_name("mended")
    mended.write_bytes(right)
    mended.replace(shard)
    worker.wait_event("phase", phase="ready")
    assert len(worker.events("weights-hash")) >= 3
    assert len(worker.events("weights-not-ready")) == 1


def test_a_flipped_byte_is_named_and_its_mend_is_noticed(site: Site, start: Start) -> None:
    """Same size, new modification time, other bytes: hashed once, refused by name, served once mended."""
    shard = site.publish() / SHARD
    right = shard.read_bytes()
    shard.write_bytes(right[:-1] + b"\0")
    os.utime(shard, ns=(1, 1))
    worker = start()
    said = worker.wait_event("weights-not-ready")
    assert said["problem"] == f"{shard} is corrupt: its sha256 is not that of READY.json"
    shard.write_bytes(right)
    worker.wait_event("phase", phase="ready")
    assert len(worker.events("weights-not-ready")) == 1
    assert [event["file"] for event in worker.events("weights-hash")] == [SHARD, SHARD]


def test_a_touched_file_with_its_own_bytes_is_served(site: Site, start: Start) -> None:
    """Another modification time costs a hash, not the start."""
    os.utime(site.publish() / SHARD, ns=(1, 1))
    worker = start()
    worker.wait_event("phase", phase="ready")
    assert [event["file"] for event in worker.events("weights-hash")] == [SHARD]


def test_the_containers_words_come_last(site: Site, start: Start) -> None:
    """Extra arguments follow the launcher's own, so that they win."""
    site.publish()
    worker = start(words=("--host", "127.0.0.1"))
    worker.wait_event("phase", phase="ready")
    assert worker.out[1].endswith(f"--middleware {MIDDLEWARE} --host 127.0.0.1")


def test_without_a_slug_one_line_and_exit_code_2(site: Site, start: Start) -> None:
    """A missing setting is said on standard error and nothing is started."""
    site.settings["LAUNCHER_SLUG"] = ""
    worker = start()
    assert worker.wait() == 2
    assert worker.err == ["launcher: LAUNCHER_SLUG is not set: set it to the slug this worker serves"]
    assert worker.out == []


def test_a_state_folder_that_cannot_be_written_is_named(site: Site, start: Start) -> None:
    """A missing tmpfs is said in one line that names the folder and the remedy."""
    site.settings["LAUNCHER_STATE_DIR"] = "/proc/octet"
    worker = start()
    assert worker.wait() == 2
    assert len(worker.err) == 1
    assert "LAUNCHER_STATE_DIR /proc/octet cannot be written" in worker.err[0]
    assert "mount a tmpfs" in worker.err[0]


def test_health_says_the_phase_and_follows_vllm(site: Site, start: Start) -> None:
    """Exit code 1 with phase and problem before vLLM answers, 0 once it does, 1 when it is gone."""
    before = site.health()
    assert (before.returncode, before.stdout) == (
        1,
        "unhealthy (connection refused): no launcher has written its state\n",
    )
    worker = start()
    worker.wait_event("weights-not-ready")
    waiting = site.health()
    assert waiting.returncode == 1
    assert f"is missing; run: docker compose up {SLUG}-weights\n" in waiting.stdout
    site.publish()
    worker.wait_event("phase", phase="ready")
    healthy = site.health()
    assert healthy.returncode == 0
    assert healthy.stdout.startswith("healthy: ready for ")
    worker.stop()
    assert site.health().returncode == 1


def test_the_state_file_tells_the_whole_start(site: Site, start: Start) -> None:
    """Phase, number of the run and seconds per phase can be read by any program."""
    site.publish()
    start().wait_event("phase", phase="ready")
    found = json.loads((site.root / "state" / "state.json").read_text())
    assert (found["schema"], found["slug"], found["phase"], found["run"]) == (1, SLUG, "ready", 1)
    assert list(found["seconds"]) == ["weights-check", "starting", "loading", "compiling", "warm-up"]
    assert found["problem"] is None


def test_a_program_that_is_not_there_is_a_configuration_error(site: Site, start: Start) -> None:
    """It is named, and no restart is tried."""
    site.publish()
    site.settings["LAUNCHER_COMMAND"] = "/nowhere/vllm serve"
    worker = start()
    said = worker.wait_event("configuration-error")
    assert said["problem"] == "/nowhere/vllm cannot be started: No such file or directory"
    assert worker.stop() == 0


def test_the_launcher_needs_no_installed_package(site: Site) -> None:
    """It runs in isolated mode, with neither site packages nor anything but its own folder."""
    words = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module('launcher', run_name='__main__')"
    environ = site.environ()
    code = os.spawnve(
        os.P_WAIT,
        sys.executable,
        [sys.executable, "-I", "-S", "-c", words, environ["PYTHONPATH"], "health"],
        environ,
    )
    assert code == 1
