"""Who has a directory: a worker that serves from it holds a shared lock on it, whoever removes it an exclusive one."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_LOCKS_HERE = (
    errno.ENOLCK,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
)  # a shared file system: nobody can have it, or all can


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Lock *path*, a file or a directory, until the block ends; yields whether nobody else has it. Raises OSError."""
    descriptor = os.open(
        path, os.O_RDONLY if path.is_dir() else os.O_RDWR
    )  # NFS locks no file that is open to be read
    try:
        yield _locked(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


@contextmanager
def shared(path: Path) -> Iterator[bool]:
    """Hold *path* until the block ends, as a worker does; yields whether nobody is removing it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody has it now. Raises OSError."""
    with exclusive(path) as free:
        return not free


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
    return True
