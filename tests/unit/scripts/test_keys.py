"""`make key` and its like, with a small program in Docker's place that runs the gateway on this host."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.api_keys import hash_key

ROOT = Path(__file__).resolve().parents[3]
DOCKER = f"""#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$DOCKER_LOG"
cat "${{COMPOSE_FILE##*:}}" >> "$DOCKER_LOG.yaml"; echo "$COMPOSE_FILE" >> "$DOCKER_LOG.files"
while [ "$1" != gateway ]; do shift; done
exec {sys.executable} -m "$@"
"""


class Checkout:
    """A checkout that has the Makefile and scripts alone, and no .env."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path / "api-keys.yaml"
        (path / "bin").mkdir()
        (path / "bin/docker").write_text(DOCKER)
        (path / "bin/docker").chmod(0o755)
        (path / "Makefile").symlink_to(ROOT / "Makefile")
        (path / "scripts").mkdir()
        (path / "scripts/keys").write_bytes((ROOT / "scripts/keys").read_bytes())
        (path / "scripts/keys").chmod(0o755)

    def make(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "MAKE"))
        }
        environment = inherited | {
            "PATH": f"{self.path}/bin:{os.environ['PATH']}",
            "DOCKER_LOG": str(self.path / "docker.log"),
            "GATEWAY_CARDS_DIR": str(ROOT / "docker"),
            **settings,
        }
        return subprocess.run(
            ["make", "-s", *words], cwd=self.path, env=environment, capture_output=True, text=True, timeout=40
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    return Checkout(tmp_path)


def test_a_key_from_its_making_to_its_end(checkout: Checkout) -> None:
    """Made, listed, replaced, revoked; a key is on standard output alone, and never in the file."""
    (checkout.path / ".env").write_text("GATEWAY_OPEN=0\nGATEWAY_API_KEYS_FILE=./api-keys.yaml\n")
    made = checkout.make("key", "NAME=team-a", "MODELS=qwen3-0.6b", "RPM=60", "PRIORITY=bulk")
    assert (made.returncode, made.stdout[:9], made.stdout.count("\n")) == (0, "sk-octet-", 1)
    assert "shown only now" in made.stderr
    rotated = checkout.make("key-rotate", "NAME=team-a")
    digests = [hash_key(one.stdout.strip().encode())[:8] for one in (rotated, made)]
    listed = checkout.make("keys").stdout.splitlines()[1].split()
    assert listed == ["team-a", "valid", "qwen3-0.6b", "rpm=60", "bulk", "1", "no", "-", "-", *digests]
    assert checkout.make("key-revoke", "NAME=team-a").returncode == 0
    assert "team-a  revoked" in checkout.make("keys").stdout
    assert "sk-octet-" not in checkout.file.read_text()
    assert checkout.file.stat().st_mode & 0o777 == 0o640
    calls = (checkout.path / "docker.log").read_text().splitlines()
    user = f"--user {os.getuid()}:{checkout.file.stat().st_gid}"
    assert all(f"{user} --volume {checkout.file}:{checkout.file} gateway keys" in call for call in calls)


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["key", "NAME=a"], "compose.yaml:mine.yaml"),
        (["keys"], ""),
        (["key-rotate", "NAME=b"], ""),
        (["key-revoke", "NAME=b"], ""),
        (["api-key"], ""),
    ],
)
def test_nothing_that_is_printed_stays_in_a_log(checkout: Checkout, words: list[str], files: str) -> None:
    """Docker keeps what a container prints, unless its log driver is `none`; the operator's own files still count."""
    checkout.file.write_text(f"keys: {{b: {{sha256: [{'a' * 64}]}}}}\n" if words[0] != "key" else "")
    (checkout.path / ".env").write_text(f"COMPOSE_FILE={files}\n")
    done = checkout.make(*words, GATEWAY_API_KEYS_FILE=str(checkout.file))
    is_printed = "sk-octet-" in done.stdout + done.stderr
    assert (done.returncode, is_printed) == (0, words[0] not in ("keys", "key-revoke"))
    assert "logging: !override {driver: none}" in (checkout.path / "docker.log.yaml").read_text()
    used = (checkout.path / "docker.log.files").read_text().strip()
    assert used.startswith(f"{files or 'compose.yaml'}:")
    assert not Path(used.rpartition(":")[2]).exists()


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs Docker Compose, but no Engine")
def test_compose_understands_what_takes_the_log_away(checkout: Checkout, tmp_path: Path) -> None:
    """Beside the repository's own files: no log, no network, everything else as for the gateway."""
    assert checkout.make("key", "NAME=a", GATEWAY_API_KEYS_FILE=str(checkout.file)).returncode == 0
    override = tmp_path / "docker.log.yaml"
    done = subprocess.run(
        ["docker", "compose", "-f", "compose.yaml", "-f", override, "config", "--format", "json", "gateway"],
        cwd=ROOT, capture_output=True, text=True, timeout=40, check=True,
    )  # fmt: skip
    gateway = json.loads(done.stdout)["services"]["gateway"]
    assert gateway["logging"] == {"driver": "none"}
    assert gateway["network_mode"] == "none"
    assert gateway["read_only"] is True


def test_a_refusal_leaves_nothing_behind(checkout: Checkout) -> None:
    """Its exit code is the command's. Only an empty file stays, since another command may be at writing into it."""
    named = {"GATEWAY_API_KEYS_FILE": str(checkout.file)}
    for words in (["keys"], ["key-rotate", "NAME=a"], ["key-revoke", "NAME=a"]):
        assert "make key NAME=... makes it" in checkout.make(*words, **named).stderr
        assert not checkout.file.exists()
    refused = checkout.make("key", "NAME=a", "MODELS=nope", **named)
    assert refused.returncode == 2
    assert "'nope' is no model or alias" in refused.stderr
    assert checkout.file.read_bytes() == b""
    assert checkout.make("key", "NAME=a", **named).returncode == 0


def test_a_link_keeps_the_rights_of_the_file_it_leads_to(checkout: Checkout, tmp_path: Path) -> None:
    """The command runs as the owner and group of that file."""
    (tmp_path / "real").write_bytes(b"")
    other = next((group for group in os.getgroups() if group != os.getgid()), os.getgid())
    os.chown(tmp_path / "real", -1, other)
    checkout.file.symlink_to(tmp_path / "real")
    assert checkout.make("key", "NAME=a", GATEWAY_API_KEYS_FILE=str(checkout.file)).returncode == 0
    assert f"--user {os.getuid()}:{other} " in (tmp_path / "docker.log").read_text()
    assert checkout.file.is_symlink()


def test_where_there_is_no_place_for_keys(checkout: Checkout) -> None:
    """Without the setting, and where Docker has made a directory in place of the file."""
    assert "set GATEWAY_API_KEYS_FILE in .env" in checkout.make("key", "NAME=a").stderr
    checkout.file.mkdir()
    told = checkout.make("key", "NAME=a", GATEWAY_API_KEYS_FILE=str(checkout.file)).stderr
    assert "is a directory: Docker makes one in place of a file that is not there" in told
