"""Hashing in a process of its own, one for each core. Files are mapped, so that no byte is copied before it is hashed.
Threads of one process would contend for its page tables, and a mapped page that the disk cannot read kills its process.
Where a child fails, the parent reads the file itself and gets a proper error. What the child runs begins at `main`."""

import contextlib
import errno
import hashlib
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_WINDOW_BYTES = 32 << 20  # mapped at a time, while the disk reads the next
_AHEAD_BYTES = 128 << 10  # what a disk reads ahead at once, at least
_BLOCK_BYTES = 1 << 20  # of a plain read: fits a core's cache
_POPULATE_READ = 22  # MADV_POPULATE_READ: all pages of a window at once; mmap names it from Python 3.14 on

OnBytes = Callable[[int], None]  # gets each count of bytes, once they are hashed


class Hasher:
    """A child that hashes file after file for one thread of `verify`: begun at the first, and again after it died."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def sha256(self, path: Path, on_bytes: OnBytes) -> str:
        """Return the hex digest of *path*; *on_bytes* gets each count of hashed bytes. Raises OSError as reads do."""
        counted = 0

        def count(more: int) -> None:
            nonlocal counted
            counted += more
            on_bytes(more)

        try:
            found = self._by_child(path, count)
        except BaseException:  # of on_bytes, say: the child goes on to write about this file
            self.close()
            raise
        return found or _read(path, on_bytes, counted)

    def _by_child(self, path: Path, on_bytes: OnBytes) -> str | None:
        """Return the digest by the child; None if it cannot be started, cannot read the file or has died."""
        try:
            child = self._child = self._child or _start_child()
            _ask(child, path)
        except OSError:  # no process left to start, or the child has died since the last file
            self.close()
            return None
        assert child.stdout is not None
        for line in child.stdout:
            said = json.loads(line)
            if "sha256" in said:
                return str(said["sha256"]) or None  # empty: it could not read the file
            on_bytes(int(said["bytes"]))
        self.close()  # its output has ended: it died, as of a page that could not be read
        return None

    def close(self) -> None:
        """Kill the child, if there is one; `sha256` would start another."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def __enter__(self) -> "Hasher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _start_child() -> "subprocess.Popen[bytes]":
    """Start a child, which runs this file as a program. Raises OSError."""
    words = [sys.executable, "-I", "-S", __file__]  # -S: without site-packages it starts in 10 ms
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603


def _ask(child: "subprocess.Popen[bytes]", path: Path) -> None:
    """Send the child the *path* of the next file to hash. Raises BrokenPipeError if the child has ended."""
    assert child.stdin is not None
    child.stdin.write(json.dumps(str(path)).encode() + b"\n")
    child.stdin.flush()


def _read(path: Path, on_bytes: OnBytes, counted: int) -> str:
    """Return the digest by plain reads, since the child failed; its first *counted* bytes are not told again."""
    digest, block, done = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES)), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            done += count
            if done > counted:
                on_bytes(done - counted)
                counted = done
    return digest.hexdigest()


def main() -> None:
    """Run the child: read a path a line, in JSON; answer lines of `bytes`, at last `sha256`, empty if it failed."""
    for line in sys.stdin.buffer:
        try:
            _say(sha256=_sha256(json.loads(line)))
        except (OSError, ValueError):  # mmap raises ValueError for a file that is shorter by now
            _say(sha256="")


def _say(**what: object) -> None:
    """Write a line from the child to its parent, unbuffered: `Hasher` waits for it."""
    os.write(sys.stdout.fileno(), json.dumps(what).encode() + b"\n")


def _sha256(path: str) -> str:
    """Return the file's digest, computed in the child; says after each window how many bytes were hashed."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        for window in _windows(file.fileno(), os.fstat(file.fileno()).st_size):
            digest.update(window)
            _say(bytes=len(window))
    return digest.hexdigest()


def _windows(descriptor: int, size: int) -> Iterator[mmap.mmap]:
    """Yield all bytes in turn, mapped; the disk reads the next window while one is used."""
    for offset in range(0, size, _WINDOW_BYTES):
        count = min(_WINDOW_BYTES, size - offset)
        with mmap.mmap(descriptor, count, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=offset) as window:
            _populate(window)
            _read_ahead(descriptor, offset + count)
            yield window


def _read_ahead(descriptor: int, begin: int) -> None:
    """Have the disk begin to read a window, without waiting; the kernel may limit one call to the disk's read-ahead."""
    for offset in range(begin, begin + _WINDOW_BYTES, _AHEAD_BYTES):
        os.posix_fadvise(descriptor, offset, _AHEAD_BYTES, os.POSIX_FADV_WILLNEED)


def _populate(window: mmap.mmap) -> None:
    """Map all pages at once; before Linux 5.14 (EINVAL) each when it is used. Raises OSError for an unreadable one."""
    try:
        window.madvise(_POPULATE_READ)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):  # the parent is gone, or Ctrl-C ends both
        main()
