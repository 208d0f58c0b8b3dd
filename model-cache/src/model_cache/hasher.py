"""Hashing in a process of its own, one for each core.

Files are mapped, so that no byte is copied before it is hashed. Threads of one process would wait for each other's
page tables; and a mapped page that the disk cannot read ends its process: a child, whose file's name is known.
"""

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
from types import TracebackType

_WINDOW_BYTES = 32 << 20  # mapped at a time, while the disk reads the next
_POPULATE_READ = 22  # MADV_POPULATE_READ: all pages of a window at once; mmap names it from Python 3.14 on


class Hasher:
    """A child that hashes one file after another. It starts when it is first asked, and again after it was lost."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def sha256(self, path: Path, on_bytes: Callable[[int], None]) -> str:
        """Hex digits of all bytes of *path*; *on_bytes* is called with each count of bytes that were hashed.

        Raises OSError: EIO where the disk cannot read a part, or the file was cut off meanwhile.
        """
        if self._child is None:
            words = [sys.executable, "-I", "-S", __file__]  # without site-packages it starts in 10 ms
            self._child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        try:
            return _asked(self._child, path, on_bytes)
        except (EOFError, BrokenPipeError) as error:
            self.close()
            raise OSError(errno.EIO, "the file could not be read to its end", str(path)) from error

    def close(self) -> None:
        """Ends the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def __enter__(self) -> "Hasher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _asked(child: "subprocess.Popen[bytes]", path: Path, on_bytes: Callable[[int], None]) -> str:
    """Raises OSError as the child met it, EOFError or BrokenPipeError where it has ended."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(str(path)).encode() + b"\n")
    child.stdin.flush()
    for line in child.stdout:
        said = json.loads(line)
        if "sha256" in said:
            return str(said["sha256"])
        if "errno" in said:
            raise OSError(said["errno"], os.strerror(said["errno"]), str(path))
        on_bytes(said["bytes"])
    raise EOFError


def main() -> None:
    """The child: a path a line, in JSON; for each, lines of `bytes` and last one with `sha256` or `errno`."""
    for line in sys.stdin.buffer:
        try:
            _say(sha256=_sha256(json.loads(line)))
        except ValueError:  # how mmap names a file that is shorter by now
            _say(errno=errno.EIO)
        except OSError as error:  # EFAULT: the disk could not read what was to be mapped
            _say(errno=errno.EIO if error.errno == errno.EFAULT else error.errno)


def _say(**what: object) -> None:
    os.write(sys.stdout.fileno(), json.dumps(what).encode() + b"\n")


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        for window in _windows(file.fileno(), os.fstat(file.fileno()).st_size):
            digest.update(window)
            _say(bytes=len(window))
    return digest.hexdigest()


def _windows(descriptor: int, size: int) -> Iterator[mmap.mmap]:
    """All bytes in turn; the disk reads the next window while one is used."""
    for offset in range(0, size, _WINDOW_BYTES):
        count = min(_WINDOW_BYTES, size - offset)
        with mmap.mmap(descriptor, count, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=offset) as window:
            _populate(window)
            os.posix_fadvise(descriptor, offset + count, _WINDOW_BYTES, os.POSIX_FADV_WILLNEED)
            yield window


def _populate(window: mmap.mmap) -> None:
    """Before Linux 5.14, which does not know how, pages come as they are used."""
    try:
        window.madvise(_POPULATE_READ)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main()
