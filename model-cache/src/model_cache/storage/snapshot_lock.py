"""Locks on a snapshot's directory: shared for workers that serve from it, exclusive for whoever removes it."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # a shared one: then nobody is excluded


def exclusive(path: Path) -> AbstractContextManager[bool]:
    """Lock *path*, a file or a directory, until the block ends; yields whether nobody else has it. Raises OSError."""
    # NFS gives no exclusive lock on a file that is open for reading alone
    return _held(path, os.O_RDONLY if path.is_dir() else os.O_RDWR, fcntl.LOCK_EX)


def shared(path: Path) -> AbstractContextManager[bool]:
    """Hold *path* until the block ends, as a worker does; yields whether nobody is removing it. Raises OSError."""
    return _held(path, os.O_RDONLY, fcntl.LOCK_SH)


def is_held(path: Path) -> bool:
    """Return whether somebody has locked *path* now, for `inventory` and `prune` to show. Raises OSError."""
    with exclusive(path) as free:
        return not free


@contextmanager
def _held(path: Path, flags: int, kind: int) -> Iterator[bool]:
    """Hold a lock of that *kind* (flock's) until the block ends; yields whether it was free. Never blocks."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield _locked(descriptor, kind)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    """Try to lock; False if somebody else has it, True also where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
    return True
