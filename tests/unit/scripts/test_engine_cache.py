"""`make cache-export` and `make cache-import`: compiled caches reach another node whole, or nothing there changes."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from scripts.engine_cache import Manifest, Origin, RefusedError, export, import_

ROOT = Path(__file__).resolve().parents[3]
HERE = Origin("a-slug", "vllm 0.32.0", "b" * 64, "NVIDIA H200 (compute capability 9.0)")
FILES = {
    "vllm/torch_compile_cache/0a/rank_0_0/model": b"graph",
    "triton/x.so": b"\x7fELF" * 300_000,
    "empty": b"",
}


def caches(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(1, 1_700_000_000_123_456_789))
    return folder


def found(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    folder = caches(tmp_path / "theirs", FILES | {"octet-starts.json": b"[1]"})
    (folder / "link").symlink_to("/etc/passwd")
    return folder


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return caches(tmp_path / "ours", {"vllm/old": b"old", "octet-starts.json": b"[2]"})


@pytest.fixture
def archive(theirs: Path) -> bytes:
    target = io.BytesIO()
    export(theirs, HERE, target)
    return target.getvalue()


def test_an_import_replaces_the_caches_and_keeps_this_hosts_own_file(ours: Path, archive: bytes) -> None:
    import_(ours, HERE, io.BytesIO(archive))
    assert found(ours) == FILES | {"octet-starts.json": b"[2]"}
    assert (ours / "triton/x.so").stat().st_mtime_ns == 1_700_000_000_123_456_789


def test_an_export_of_what_was_imported_is_the_same(ours: Path, archive: bytes) -> None:
    import_(ours, HERE, io.BytesIO(archive))
    again = io.BytesIO()
    export(ours, HERE, again)
    assert again.getvalue() == archive


def test_one_import_at_a_time(ours: Path, archive: bytes) -> None:
    """A second one would delete what the first has moved aside."""
    before = found(ours)
    first = os.open(ours, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    with pytest.raises(RefusedError, match="another import"):
        import_(ours, HERE, io.BytesIO(archive))
    os.close(first)
    assert found(ours) == before
    import_(ours, HERE, io.BytesIO(archive))


def test_what_an_import_that_was_killed_left_is_removed(ours: Path, archive: bytes) -> None:
    caches(ours / ".octet-import", {"new/half": b"", "old/half": b""})
    import_(ours, HERE, io.BytesIO(archive))
    assert found(ours) == FILES | {"octet-starts.json": b"[2]"}


def refused(ours: Path, archive: bytes, here: Origin = HERE) -> str:
    """The sentence with which an import is refused; what was there must be untouched."""
    before = found(ours)
    with pytest.raises(RefusedError) as error:
        import_(ours, here, io.BytesIO(archive))
    assert found(ours) == before
    assert not (ours / ".octet-import").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slug": "other"}, "it is of a-slug, not of other"),
        ({"build": "c" * 64, "versions": "vllm 0.33.0"}, "(build bbbbbbbbbbbb) and this image has vllm 0.33.0"),
        ({"build": "c" * 64}, "(build cccccccccccc): export it from a node with the same pin"),
        ({"hardware": "NVIDIA H100 (compute capability 9.0)"}, "made on NVIDIA H200 (compute capability 9.0) and"),
    ],
)  # fmt: skip
def test_caches_from_elsewhere_are_refused(
    ours: Path, archive: bytes, change: dict[str, str], said: str
) -> None:
    assert said in refused(ours, archive, replace(HERE, **change))


@pytest.mark.parametrize("kept", [0, 1, 300, 512, 2000, 4096, 100_000, 1_000_000])
def test_a_file_that_is_cut_off_is_refused(ours: Path, archive: bytes, kept: int) -> None:
    assert refused(ours, archive[:kept])


def test_a_flipped_byte_is_refused(ours: Path, archive: bytes) -> None:
    at = archive.index(b"\x7fELF" * 9) + 20_000
    wrong = archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]
    assert "triton/x.so in it is not what its manifest.json says" in refused(ours, wrong)


def changed(archive: bytes, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> bytes:
    """The archive with its members changed by hand."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as old:
        members = [(one, old.extractfile(one).read()) for one in old]  # type: ignore[union-attr]
    change(members)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as new:
        for member, content in members:
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return target.getvalue()


def rewritten(members: list[tuple[tarfile.TarInfo, bytes]], change: Callable[[Any], None]) -> None:
    said = json.loads(members[0][1])
    change(said)
    members[0] = members[0][0], json.dumps(said).encode()


@pytest.mark.parametrize(
    "path",
    ["/etc/cron.d/x", "../x", "vllm/../../x", "./x", "a//b", "", "octet-starts.json", ".octet-import/x", "a\nb", 7],
)  # fmt: skip
def test_a_path_that_leaves_the_caches_is_refused(ours: Path, archive: bytes, path: object) -> None:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        rewritten(members, lambda said: said["files"][0].update(path=path))
        members[1][0].name = str(path)

    assert "which no cache has" in refused(ours, changed(archive, change))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_a_link_or_a_device_is_refused(ours: Path, archive: bytes, kind: bytes) -> None:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member = members[1][0]
        member.type, member.linkname = kind, "/etc/passwd"
        members[1] = member, b""

    assert "is a link or the like" in refused(ours, changed(archive, change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda said: said["files"].append(said["files"][0]), "twice"),
        (lambda said: said["files"][0].update(path=said["files"][1]["path"] + "/x"), "as a file and as a directory"),
        (lambda said: said["files"][0].update(size=-1), "that cannot be"),
        (lambda said: said["files"][0].update(size=True), "that cannot be"),
        (lambda said: said["files"][0].update(sha256="0"), "that cannot be"),
        (lambda said: said["files"][0].update(size=1 << 60), "bytes and the volume has"),
        (lambda said: said["files"][0].update(more=1), "cannot be read"),
        (lambda said: said.pop("files"), "cannot be read"),
        (lambda said: said["origin"].update(slug=1), "no text"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_is_refused(
    ours: Path, archive: bytes, change: Callable[[Any], None], said: str
) -> None:
    assert said in refused(ours, changed(archive, lambda members: rewritten(members, change)))


def test_files_that_are_missing_swapped_or_too_many_are_refused(ours: Path, archive: bytes) -> None:
    assert "ends after 2 of 3 files" in refused(ours, changed(archive, lambda members: members.pop()))
    assert "where its manifest.json lists" in refused(
        ours, changed(archive, lambda all: all.append(all.pop(1)))
    )
    assert "does not list" in refused(ours, changed(archive, lambda members: members.append(members[1])))


def test_what_is_no_export_is_refused(ours: Path) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w|") as other:
        other.addfile(tarfile.TarInfo("x"))
    assert "so it is no export" in refused(ours, target.getvalue())
    assert "no export" in refused(ours, b"\x1f\x8b" + bytes(2000))


def test_a_swap_that_fails_is_undone(ours: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may fail at the very end, between two renames."""
    before, rename, calls = found(ours), Path.rename, iter([True, True, False])

    def failing(self: Path, target: Path) -> Path:
        if not next(calls, True):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output"):
        import_(ours, HERE, io.BytesIO(archive))
    assert found(ours) == before


def test_empty_caches_are_not_exported(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="compiled nothing yet: start it once"):
        export(tmp_path, HERE, io.BytesIO())


def test_a_file_that_changes_meanwhile_ends_the_export(theirs: Path) -> None:
    class Slow(io.BytesIO):
        def write(self, data: Any, /) -> int:
            (theirs / "vllm/torch_compile_cache/0a/rank_0_0/model").write_bytes(b"new")
            return super().write(data)

    with pytest.raises(RefusedError, match="rank_0_0/model changed while it was exported"):
        export(theirs, HERE, Slow())


def test_a_manifest_survives_its_own_text(archive: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        manifest = Manifest.parse(members.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert Manifest.parse(manifest.content()) == manifest
    assert [entry.path for entry in manifest.files] == [
        "empty",
        "triton/x.so",
        "vllm/torch_compile_cache/0a/rank_0_0/model",
    ]
    assert asdict(manifest.origin) == asdict(HERE)


DOCKER = """#!/usr/bin/env bash
# stands in for Docker: `compose run` starts the program here, with the folder of this test's node in place of /cache
set -eu
case " $* " in
  *" ps "*) echo "${RUNNING:-}" ;;
  *" run "*) while [ "$1" != python3 ]; do shift; done; slug=$2 name=$(basename "$3"); shift 3
     exec "$PYTHON" "scripts/$name" "$@" --cache "$CACHE" ;;
esac
"""


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script on a node: with its own folder of caches, and whatever else of the environment."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(DOCKER)
    (tmp_path / "bin/docker").chmod(0o755)
    wheel = tmp_path / "site/vllm-0.32.0.dist-info"
    wheel.mkdir(parents=True)
    (wheel / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")
    (wheel / "RECORD").write_text(
        "vllm/__init__.py,sha256=abc,3\nvllm-0.32.0.dist-info/INSTALLER,sha256=d,4\n"
    )

    def run(script: str, file: Path, cache: Path, **extra: str) -> subprocess.CompletedProcess[str]:
        own = {"PYTHON": sys.executable, "CACHE": str(cache), "PYTHONPATH": str(tmp_path / "site")}
        own["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        words = [ROOT / "scripts" / script, "qwen3-0p6b-cpu", file]
        return subprocess.run(words, env=os.environ | own | extra, capture_output=True, text=True, timeout=60)

    return run


def test_from_node_to_node(
    node: Callable[..., subprocess.CompletedProcess[str]], theirs: Path, ours: Path, tmp_path: Path
) -> None:
    """The scripts, with a stand-in for Docker: both print the archive's sha256, and an existing file stays."""
    file = tmp_path / "caches.tar"
    first = node("cache-export", file, theirs)
    assert first.returncode == 0, first.stderr
    assert hashlib.sha256(file.read_bytes()).hexdigest() in first.stdout
    assert "vllm 0.32.0" in first.stderr
    again = node("cache-export", file, theirs)
    assert again.returncode == 1
    assert "exists: remove it" in again.stderr
    running = node("cache-import", file, ours, RUNNING="0123abc")
    assert running.returncode == 1
    assert "docker compose stop qwen3-0p6b-cpu" in running.stderr
    done = node("cache-import", file, ours)
    assert done.returncode == 0, done.stderr
    assert first.stdout.split()[0] in done.stdout
    assert found(ours) == FILES | {"octet-starts.json": b"[2]"}


def test_another_build_is_told(
    node: Callable[..., subprocess.CompletedProcess[str]], theirs: Path, ours: Path, tmp_path: Path
) -> None:
    """The wheel's own bytes count, not its version, and nothing is left of an export that fails."""
    file, record = tmp_path / "caches.tar", tmp_path / "site/vllm-0.32.0.dist-info/RECORD"
    assert node("cache-export", file, theirs).returncode == 0
    record.write_text(record.read_text().replace("sha256=d", "sha256=e"))  # pip's own files do not count
    assert node("cache-import", file, ours).returncode == 0
    record.write_text(record.read_text().replace("sha256=abc", "sha256=abd"))
    other = node("cache-import", file, ours)
    assert other.returncode == 1
    assert "export it from a node with the same pin" in other.stderr
    failed = node("cache-export", tmp_path / "new.tar", tmp_path / "nothing")
    assert failed.returncode == 1
    assert "compiled nothing yet" in failed.stderr
    assert [path.name for path in tmp_path.glob("*.tar*")] == ["caches.tar"]


def test_a_node_whose_gpus_cannot_be_told_is_refused(
    node: Callable[..., subprocess.CompletedProcess[str]], theirs: Path, tmp_path: Path
) -> None:
    fake = tmp_path / "bin/nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA H200, 9.0'; echo 'NVIDIA H200, 9.0'\n")
    fake.chmod(0o755)
    done = node("cache-export", tmp_path / "a.tar", theirs, LAUNCHER_GPUS="8")
    assert "NVIDIA H200 (compute capability 9.0)" in done.stderr
    fake.write_text("#!/bin/sh\necho 'No devices were found'; exit 6\n")
    done = node("cache-export", tmp_path / "b.tar", theirs, LAUNCHER_GPUS="8")
    assert done.returncode == 1
    assert "No devices were found" in done.stderr
