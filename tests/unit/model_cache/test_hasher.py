"""Hashing in a child: every byte counts once, and what cannot be read ends as an error that names the file."""

import errno
import os
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from model_cache.hasher import Hasher

LARGE = 80 << 20  # three windows


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    with Hasher() as one:
        yield one


def child() -> int:
    """The process that hashes."""
    lists = (file.read_text() for file in Path("/proc/self/task").glob("*/children"))
    words = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for text in lists for pid in text.split()}
    return next(pid for pid, line in words.items() if b"hasher.py" in line)


def large(folder: Path) -> Path:
    """Takes no space."""
    path = folder / "large"
    with path.open("wb") as file:
        file.truncate(LARGE)
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


def test_a_file_that_is_not_there(hasher: Hasher, tmp_path: Path) -> None:
    """Is told as open() tells it, and the next one is hashed."""
    with pytest.raises(FileNotFoundError, match="missing"):
        hasher.sha256(tmp_path / "missing", print)
    assert hasher.sha256(large(tmp_path), lambda _: None)


def test_a_file_that_is_cut_off_meanwhile(hasher: Hasher, tmp_path: Path) -> None:
    """Cannot be read to its end, and the next one is hashed."""
    path = large(tmp_path)
    with pytest.raises(OSError, match="large") as caught:
        hasher.sha256(path, lambda _: os.truncate(path, 1))
    assert caught.value.errno == errno.EIO
    assert hasher.sha256(path, lambda _: None) == sha256(bytes(1)).hexdigest()


def test_a_child_that_is_lost(hasher: Hasher, tmp_path: Path) -> None:
    """As by SIGBUS, over a page that the disk cannot read: an error of that file, and the next one has a new child."""
    path = large(tmp_path)

    def strike(_: int) -> None:
        os.kill(child(), signal.SIGBUS)

    with pytest.raises(OSError, match="large") as caught:
        hasher.sha256(path, strike)
    assert caught.value.errno == errno.EIO
    assert hasher.sha256(path, lambda _: None) == sha256(bytes(LARGE)).hexdigest()
