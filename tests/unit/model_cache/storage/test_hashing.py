"""Hashing in a child: every byte counts once, and what cannot be read ends as an error that names the file."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from model_cache.storage.hashing import Hasher

LARGE = 80 << 20  # three windows


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    with Hasher() as one:
        yield one


def child() -> int:
    """The process that hashes. The kernel's list can miss one while another ends, so it is read until it has it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = next((pid for pid, line in children().items() if b"hashing.py" in line), None)
        if found is not None:
            return found
    raise TimeoutError("no process hashes")


def children() -> dict[int, bytes]:
    """Those of this process that run now, with their command lines."""
    found = {}
    for file in Path("/proc/self/task").glob("*/children"):
        for pid in file.read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


def large(folder: Path, size: int = LARGE) -> Path:
    """Takes no space."""
    path = folder / "large"
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize("content", [b"", b"a", os.urandom(4097)], ids=["empty", "one byte", "two pages"])
def test_small_files(hasher: Hasher, tmp_path: Path, content: bytes) -> None:
    path, seen = tmp_path / "a\nfile, so called: \udcff", list[int]()
    path.write_bytes(content)
    assert hasher.sha256(path, seen.append) == sha256(content).hexdigest()
    assert sum(seen) == len(content)


def test_a_large_file_comes_in_windows(hasher: Hasher, tmp_path: Path) -> None:
    seen = list[int]()
    assert hasher.sha256(large(tmp_path), seen.append) == sha256(bytes(LARGE)).hexdigest()
    assert (len(seen), sum(seen)) == (3, LARGE)


def test_one_child_does_it_all(hasher: Hasher, tmp_path: Path) -> None:
    path, seen = large(tmp_path), set[int]()
    for _ in range(3):
        hasher.sha256(path, lambda _: seen.add(child()))
    assert len(seen) == 1


def test_a_file_that_is_not_there(hasher: Hasher, tmp_path: Path) -> None:
    """Is told as open() tells it, and the next one is hashed."""
    with pytest.raises(FileNotFoundError, match="missing"):
        hasher.sha256(tmp_path / "missing", print)
    assert hasher.sha256(large(tmp_path), lambda _: None)


def test_a_file_that_is_cut_off_meanwhile(hasher: Hasher, tmp_path: Path) -> None:
    """What is left counts, as for any reader; whoever asked sees by the file's stamp that it changed."""
    path = large(tmp_path, 1 << 30)  # so long that the child is not done before it is cut off
    assert hasher.sha256(path, lambda _: os.truncate(path, 1)) == sha256(bytes(1)).hexdigest()


@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_is_lost(hasher: Hasher, tmp_path: Path, number: int) -> None:
    """By SIGBUS over a page that the disk cannot read, for want of memory, or at the end of all: the parent reads on,
    every byte counts once, and the next file has a new child."""
    path, seen = large(tmp_path), list[int]()

    def strike(count: int) -> None:
        if not seen:
            os.kill(child(), number)
        seen.append(count)

    assert hasher.sha256(path, strike) == sha256(bytes(LARGE)).hexdigest()
    assert sum(seen) == LARGE
    assert hasher.sha256(path, lambda _: None) == sha256(bytes(LARGE)).hexdigest()
    assert child()


def test_no_child_at_all(hasher: Hasher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be started, or it fails at once, files are hashed all the same."""
    path = large(tmp_path)
    for program in ("/nonexistent", "/bin/false"):
        monkeypatch.setattr(sys, "executable", program)
        assert hasher.sha256(path, lambda _: None) == sha256(bytes(LARGE)).hexdigest()


def test_a_file_that_cannot_be_mapped(hasher: Hasher) -> None:
    """Is read."""
    path = Path("/sys/devices/system/cpu/online")  # sysfs has no pages, and says 4 KiB of every file
    assert hasher.sha256(path, lambda _: None) == sha256(path.read_bytes()).hexdigest()


def test_an_asker_that_fails(hasher: Hasher, tmp_path: Path) -> None:
    """What the child had still to say is no answer about the next file."""
    path, other = large(tmp_path), tmp_path / "other"
    other.write_bytes(b"other")

    def fail(_: int) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        hasher.sha256(path, fail)
    assert hasher.sha256(other, lambda _: None) == sha256(b"other").hexdigest()
