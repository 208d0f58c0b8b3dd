"""Files below a directory of a volume, opened through directory handles, so that no link below it is ever followed.
Anybody who can write to the volume could otherwise plant a link to have another file overwritten, moved or read."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class LinkError(OSError):
    """There is a link where the volume should have none; `filename` names it."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ELOOP, "is a link, and none is followed here", str(path))


@contextmanager
def parent(root: Path, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Yield a handle of the directory that holds *path*, below *root* (itself maybe a link), and the name in it. *path*
    has no `..`: `listing.unsafe` refuses it. *make*: create missing directories. Raises OSError, as LinkError."""
    *folders, name = Path(path).parts
    handle, at = os.open(root, os.O_RDONLY | os.O_DIRECTORY), root
    try:
        for folder in folders:
            at /= folder
            below = _below(handle, at, make=make)
            os.close(handle)
            handle = below
        yield handle, name
    finally:
        os.close(handle)


def _below(handle: int, path: Path, *, make: bool) -> int:
    """Open the directory *path* in its parent, *handle*, without following a link; *make*: create it if needed."""
    try:
        return os.open(path.name, _DIRECTORY, dir_fd=handle)
    except FileNotFoundError:
        if not make:
            raise
        with suppress(FileExistsError):  # another thread of this run
            os.mkdir(path.name, dir_fd=handle)
        return os.open(path.name, _DIRECTORY, dir_fd=handle)
    except OSError as error:
        raise _named(error, handle, path) from error


def opened(root: Path, path: str, flags: int) -> int:
    """Return a descriptor of the regular file at *path* below *root*; where *flags* create it, its directories too.
    Never blocks: a FIFO in its place is refused. Raises OSError, LinkError for a link in its place or on the way."""
    with parent(root, path, make=bool(flags & os.O_CREAT)) as (handle, name):
        try:
            descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644, dir_fd=handle)
        except OSError as error:
            raise _named(error, handle, root / path) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "is no regular file", str(root / path))


def writing(root: Path, path: str, *, keep: bool = False) -> BinaryIO:
    """Open the file at *path* below *root* for writing, unbuffered, and create it and its directories. *keep*: do not
    truncate it, as to resume a download. Raises what `opened` does."""
    flags = os.O_RDWR | os.O_CREAT | (0 if keep else os.O_TRUNC)
    return open(opened(root, path, flags), "r+b", buffering=0)


def write(file: BinaryIO, block: bytes) -> None:
    """Write all of *block*: a nearly full disk takes a part, and fails only on the next write."""
    left = memoryview(block)
    while left:
        left = left[file.write(left) :]


def reading(root: Path, path: str) -> BinaryIO:
    """Open the file at *path* below *root* for reading, unbuffered. Raises what `opened` does."""
    return open(opened(root, path, os.O_RDONLY), "rb", buffering=0)


def stat_of(root: Path, path: str) -> os.stat_result | None:
    """Return the stat of a regular file at *path* below *root*; None for none, or a link on the way. Raises OSError."""
    try:
        with parent(root, path) as (handle, name):
            found = os.stat(name, dir_fd=handle, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError, LinkError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def move(source: Path, path: str, target: Path) -> None:
    """Move what is at *path* below *source* to the same path below *target*, replacing a file there. Raises OSError."""
    with parent(source, path) as (old, name), parent(target, path, make=True) as (new, _):
        os.rename(name, name, src_dir_fd=old, dst_dir_fd=new)


def remove(root: Path, path: str) -> None:
    """Remove the file or link at *path* below *root*, if there is one. Raises OSError, LinkError for one on the way."""
    try:
        with parent(root, path) as (handle, name):
            os.unlink(name, dir_fd=handle)
    except FileNotFoundError:
        return


def no_link(path: Path) -> Path:
    """Return *path* for use by ordinary calls. Raises LinkError if a link lies there; its parents are not checked."""
    if path.is_symlink():
        raise LinkError(path)
    return path


def make(root: Path, path: str) -> Path:
    """Return the directory at *path* below *root*, made where it is not there. Raises LinkError."""
    with parent(root, f"{path}/x", make=True):  # the parent of any name in it
        return root / path


def _named(error: OSError, handle: int, path: Path) -> OSError:
    """Return the error with the whole path; a LinkError where a link is its reason (a link opened as a directory gives
    ENOTDIR)."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(handle, path.name):
        return LinkError(path)
    return OSError(error.errno, error.strerror, str(path))


def _is_link(handle: int, name: str) -> bool:
    """Return whether *name* in the directory *handle* is a symbolic link; False if that cannot be told."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode)
    except OSError:
        return False
