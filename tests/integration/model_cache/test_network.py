"""Two hosts with one directory over a network: each sees what the other did only after a while, and no lock of it."""

import getpass
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hub.server import Hub

from .conftest import SHARDS, Job, free_port, hashes

SHARD = next(iter(SHARDS))
SSHD = "/usr/sbin/sshd"
WAIT_S = 180  # both settle for 20 s; who finds a dead one's heartbeat watches it for 30
pytestmark = [pytest.mark.full, pytest.mark.timeout(3 * WAIT_S)]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """One directory, mounted twice by sshfs, whose mounts keep names and contents for 20 s."""
    if not (shutil.which("sshfs") and Path(SSHD).exists() and Path("/dev/fuse").exists()):
        pytest.skip("needs sshfs and sshd: apt-get install sshfs openssh-server")
    root = tmp_path_factory.mktemp("network")
    with served(root) as port, mounted(root, "first", port) as first, mounted(root, "second", port) as second:
        yield first, second


@contextmanager
def served(root: Path) -> Iterator[int]:
    """`root/disk` over SFTP, on loopback, for a key made here; yields the port."""
    (root / "disk").mkdir()
    for name in ("host", "client"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name))
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it
    port = free_port()
    options = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": root / "host",
        "AuthorizedKeysFile": root / "client.pub",
        "StrictModes": "no",
        "PidFile": "none",
        "Subsystem": "sftp internal-sftp",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name} {value}")]
    with subprocess.Popen([SSHD, "-D", "-f", "/dev/null", *words], stderr=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.terminate()


@contextmanager
def mounted(root: Path, name: str, port: int) -> Iterator[Path]:
    """Weights are found through relative links with `..`, which sshfs refuses unless it is told not to."""
    folder = root / name
    folder.mkdir()
    ssh = f"IdentityFile={root / 'client'},StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,ConnectionAttempts=20"
    source = f"{getpass.getuser()}@127.0.0.1:{root / 'disk'}"
    run("sshfs", "-p", str(port), "-o", f"{ssh},no_contain_symlinks", source, str(folder))
    try:
        yield folder
    finally:
        run("fusermount3", "-uz", str(folder))  # also while a job that hangs still has it


def run(*words: str) -> None:
    subprocess.run(words, check=True, timeout=60, stdin=subprocess.DEVNULL)


@contextmanager
def running(job: Job) -> Iterator["subprocess.Popen[str]"]:
    """A job that ends with the block, be it that a test fails in it."""
    with job.start() as process:
        try:
            yield process
        finally:
            process.kill()


def jobs_of(hosts: tuple[Path, Path], name: str, hub: Hub) -> list[Job]:
    """A job of each host, for a volume of that name on their directory."""
    (hosts[0] / name).mkdir()
    return [Job(host / name, hub.endpoint) for host in hosts]


def test_two_hosts_make_one_transfer(hosts: tuple[Path, Path], hub: Hub, true_hashes: dict[str, str]) -> None:
    """Both end well, with every byte right, and the hub was asked once."""
    jobs = jobs_of(hosts, "together", hub)
    with running(jobs[0]) as first, running(jobs[1]) as second:
        errors = [process.communicate(timeout=WAIT_S)[1] for process in (first, second)]

    assert (first.returncode, second.returncode) == (0, 0), errors
    assert [hashes(job.link) for job in jobs] == [true_hashes, true_hashes]
    assert sum(SHARD in request for request in hub.requests) == 1


def test_a_host_that_dies_is_followed_by_the_other(
    hosts: tuple[Path, Path], hub: Hub, true_hashes: dict[str, str]
) -> None:
    """Killed in the middle of a file: the other, which waited, goes on with what had come."""
    dies, follows = jobs_of(hosts, "followed", hub)
    hub.rate = 100_000
    with running(dies) as first:
        while not any(path.stat().st_size > 500_000 for path in parts(hosts, "followed")):
            time.sleep(0.1)
            assert first.poll() is None
        with running(follows) as second:
            assert second.stdout is not None
            assert any("waiting: another weights job" in line for line in second.stdout)
            first.kill()
            hub.rate = 0
            hub.requests.clear()
            _, error = second.communicate(timeout=WAIT_S)

    assert second.returncode == 0, error
    assert hashes(follows.link) == true_hashes
    assert any(SHARD in request and "bytes=" in request for request in hub.requests)


def parts(hosts: tuple[Path, Path], name: str) -> Iterator[Path]:
    """What has come of each file, on the disk itself: a mount would tell it late."""
    return (hosts[0].parent / "disk" / name).glob(".staging/*/*.incomplete")
