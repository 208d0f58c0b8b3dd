"""Bad input and bad luck: one clear line, a distinct exit code, nothing half-published."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.faults import LISTING, Fault
from tests.hub.server import Hub

from .conftest import SHARDS, Job, Outcome, free_port, hashes

SHARD = next(iter(SHARDS))
HASH = "0" * 64


def assert_refused(job: Job, outcome: Outcome, code: int, *words: str) -> None:
    """The run ended with *code* and one line that has all *words*; nothing is published."""
    assert (outcome.code, outcome.stderr.count("\n")) == (code, 1), outcome.stderr
    assert [word for word in words if word not in outcome.stderr] == []
    assert job.published() == []
    assert not job.link.exists()


def entry(path: str, size: int = 3, sha256: str = HASH) -> Fault:
    """A made-up file in the listing."""
    return Fault("entry", entry={"Path": path, "Type": "blob", "Size": size, "Sha256": sha256})


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (entry("../../escaped.txt"), "'..'"),
        (entry("/tmp/escaped.txt"), "absolute"),
        (entry("config.json"), "twice"),
        (entry("x" * 250), "224 bytes"),
        (entry("/".join(["x" * 200] * 21)), "2,048 bytes"),
        (entry("more-00001-of-00002.safetensors"), "more-00002-of-00002.safetensors"),
        (Fault("no-sha256", SHARD), "sha256"),
        (Fault("status", LISTING, value=200), "no files"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_an_unsafe_listing_is_refused_before_any_file(job: Job, hub: Hub, fault: Fault, words: str) -> None:
    """Exit 4 with the reason; not one file was asked for and nothing lies outside the volume's directories."""
    hub.faults.set(fault)

    outcome = job.run()

    assert_refused(job, outcome, 4, words, "MODEL_CACHE_REVISION")
    assert len(hub.requests) == 1
    files = sorted(path.name for path in job.volume.parent.rglob("*") if path.is_file())
    assert files == ["twins--tiny.lock"]


@pytest.mark.parametrize(
    ("linked", "words"),
    [([], "on disk differ"), ([Fault("linked", SHARD)], "keeps sending wrong bytes")],
    ids=["found on disk", "found by the SDK"],
)
def test_bytes_that_stay_wrong_are_refused(
    job: Job, hub: Hub, true_hashes: dict[str, str], linked: list[Fault], words: str
) -> None:
    """Exit 4 naming the file; once the hub is right again only that file is fetched."""
    hub.faults.set(Fault("corrupt", SHARD, value=1_000_000), *linked)
    assert_refused(job, job.run(), 4, SHARD, words, "MODEL_CACHE_ENDPOINT")
    hub.faults.set()
    hub.requests.clear()

    assert job.run().code == 0
    assert hashes(job.link) == true_hashes
    assert len(hub.requests) == 2


def test_a_shard_index_with_wrong_bytes_locks_nothing(job: Job, hub: Hub) -> None:
    """A wrong byte in a layer's name would still leave a whole index."""
    hub.faults.set(Fault("corrupt", "model.safetensors.index.json", value=18))
    outcome = job.run_text("lock")
    assert (outcome.returncode, outcome.stdout) == (4, "")
    assert "model.safetensors.index.json differs from its sha256" in outcome.stderr


def test_an_index_that_names_a_missing_shard_is_refused(tmp_path: Path, models: Path) -> None:
    """Exit 4 naming the shard, after the index alone was fetched."""
    model = tmp_path / "models" / "twins" / "tiny"
    shutil.copytree(models / "twins" / "tiny", model)
    index = model / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00002-of-00002", "gone"))
    with Hub(tmp_path / "models").running() as hub:
        job = Job(tmp_path / "volume", hub.endpoint)
        outcome = job.run()

    assert_refused(job, outcome, 4, "gone.safetensors", "incomplete")
    assert not any(SHARD in request for request in hub.requests)


def test_an_unknown_model_is_named(job: Job) -> None:
    """Exit 6 naming the repository, the revision and what to check."""
    outcome = job.run(MODEL_CACHE_REPO="twins/unknown")

    assert_refused(job, outcome, 6, "twins/unknown", "master", "404", "MODEL_CACHE_REPO")


def test_an_unknown_model_comes_with_the_slugs_own_advice(job: Job) -> None:
    """What the slug's directory knows of other sources stands at the end of the line."""
    outcome = job.run(MODEL_CACHE_REPO="twins/unknown", MODEL_CACHE_IF_MISSING="It is known elsewhere")

    assert_refused(job, outcome, 6, "404", "It is known elsewhere")


def test_an_unknown_revision_is_named(job: Job) -> None:
    """Exit 6 naming the revision."""
    assert_refused(job, job.run(MODEL_CACHE_REVISION="v9"), 6, "v9", "MODEL_CACHE_REVISION")


def test_a_listed_file_that_is_gone_is_named(job: Job, hub: Hub) -> None:
    """Exit 6 naming the file."""
    hub.faults.set(Fault("status", "config.json", 404))

    assert_refused(job, job.run(), 6, "config.json", "404")


def test_a_private_model_asks_for_a_token(job: Job, hub: Hub) -> None:
    """Exit 6 naming MODEL_CACHE_TOKEN_FILE."""
    hub.token = "secret-token"

    assert_refused(job, job.run(), 6, "401", "MODEL_CACHE_TOKEN_FILE")


def test_an_unreachable_hub_is_named_within_seconds(job: Job) -> None:
    """Exit 3 naming the address and the setting, after a few tries."""
    endpoint = f"http://127.0.0.1:{free_port()}"

    outcome = job.run(MODEL_CACHE_ENDPOINT=endpoint)

    assert_refused(job, outcome, 3, endpoint, "Connection refused", "MODEL_CACHE_ENDPOINT")
    assert outcome.wall_s < 15


def test_something_that_is_no_hub_is_named(job: Job, hub: Hub) -> None:
    """Exit 3 when the address answers 200 with something else than a listing."""
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with job.start(settings={"MODEL_CACHE_ENDPOINT": endpoint}) as process:
            with listener.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(answer)
            _, stderr = process.communicate(timeout=30)

    assert_refused(job, Outcome(process.returncode, [], stderr, 0, 0), 3, endpoint, "MODEL_CACHE_ENDPOINT")


def test_too_small_a_volume_is_refused_before_any_file(job: Job, hub: Hub) -> None:
    """Exit 5 with the free and the needed bytes; not one file was asked for."""
    hub.faults.set(entry("huge.safetensors", size=10**15))

    outcome = job.run()

    assert_refused(job, outcome, 5, "bytes free", "1,050,0", "MODEL_CACHE_DIR")
    assert len(hub.requests) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    mount = tmp_path / "small"
    mount.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs: run as root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_that_fills_up_midway_keeps_what_came(
    small_disk: Path, hub: Hub, true_hashes: dict[str, str]
) -> None:
    """Exit 5 when the disk fills during the download; with room again, the rerun resumes and completes."""
    job = Job(small_disk / "volume", hub.endpoint)
    hub.rate = 1_500_000
    ballast = small_disk / "ballast"
    with job.start() as process:
        assert process.stdout
        while '"downloading"' not in process.stdout.readline():
            assert process.poll() is None
        ballast.write_bytes(bytes(8_000_000))
        _, stderr = process.communicate(timeout=30)
    assert_refused(job, Outcome(process.returncode, [], stderr, 0, 0), 5, "full", "free space")
    ballast.unlink()
    hub.rate = 0
    hub.requests.clear()

    assert job.run().code == 0
    assert hashes(job.link) == true_hashes
    assert any("bytes=" in request for request in hub.requests)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_volume_of_another_owner_is_named(job: Job) -> None:
    """Exit 2 with the command that mends it."""
    job.volume.mkdir()
    as_other = "import os; from model_cache.__main__ import main; os.setuid(10001); raise SystemExit(main())"

    outcome = job.run("-c", as_other)

    assert_refused(job, outcome, 2, "uid 10001", f"chown -R 10001 what is mounted at {job.volume}")


def test_a_port_in_use_is_named(job: Job, hub: Hub) -> None:
    """Exit 2 naming the port and its setting."""
    outcome = job.run(MODEL_CACHE_PORT=str(hub.port))

    assert_refused(job, outcome, 2, str(hub.port), "MODEL_CACHE_PORT")


def test_a_run_without_a_descriptor_for_its_port_fetches_all_the_same(
    job: Job, true_hashes: dict[str, str]
) -> None:
    """One line says that nobody can follow it."""
    without = """
import errno, socket
def create_server(*_, **__):
    raise OSError(errno.EMFILE, "Too many open files")
socket.create_server = create_server
from model_cache.__main__ import main
raise SystemExit(main())
"""
    outcome = job.run("-c", without)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert hashes(job.link) == true_hashes
    assert [line for line in outcome.lines if "Too many open files" in (line["remark"] or "")]


def test_a_container_without_threads_is_told_so(job: Job) -> None:
    """Exit 3 in one line: a later run may have some."""
    without = """
import threading
def start(_):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start
from model_cache.__main__ import main
raise SystemExit(main())
"""
    assert_refused(job, job.run("-c", without), 3, "can't start new thread", "limit of processes")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"MODEL_CACHE_SLUG": ""}, ["MODEL_CACHE_SLUG: is not set"]),
        (
            {"MODEL_CACHE_REPO": "../etc", "MODEL_CACHE_PORT": "99999"},
            ["MODEL_CACHE_REPO", "MODEL_CACHE_PORT"],
        ),
        ({"MODEL_CACHE_ENDPOINT": "modelscope.cn"}, ["MODEL_CACHE_ENDPOINT", "https://host"]),
        ({"MODEL_CACHE_TOKEN_FILE": "/nonexistent/token"}, ["/nonexistent/token", "MODEL_CACHE_TOKEN_FILE"]),
    ],
)
def test_a_wrong_setting_is_named(job: Job, settings: dict[str, Any], words: list[str]) -> None:
    """Exit 2 naming every setting at fault."""
    assert_refused(job, job.run(**settings), 2, *words)


@pytest.mark.parametrize("words", [("unpublish",), ("lock", "x"), ("inventory", "files"), ("export", "slug")])
def test_a_wrong_command_is_one_line(job: Job, words: tuple[str, ...]) -> None:
    """Exit 2, and the line says where to read more."""
    outcome = job.run("-m", "model_cache", *words)
    assert (outcome.code, outcome.lines, outcome.stderr.count("\n")) == (2, [], 1)
    assert "--help" in outcome.stderr
