"""Locks on a snapshot: shared by `export` (workers take theirs in the launcher); exclusive by `prune`, also on the
file that a run holds for its repository."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # as on some shared ones: nobody is excluded


def exclusive(path: Path) -> AbstractContextManager[bool]:
    """Lock file or directory *path* until the block ends; yields False, unlocked, if another has it. Raises OSError."""
    # NFS gives no exclusive lock on a file that is open for reading alone
    return _held(path, os.O_RDONLY if path.is_dir() else os.O_RDWR, fcntl.LOCK_EX)


def shared(path: Path) -> AbstractContextManager[bool]:
    """Hold snapshot *path* until the block ends, for `export`; yields False if it is being removed (or `is_held`
    looks right now). Raises OSError."""
    return _held(path, os.O_RDONLY, fcntl.LOCK_SH)


def is_held(path: Path) -> bool:
    """Return whether somebody has locked *path* now, by trying to, for `inventory` and `prune`. Raises OSError."""
    with exclusive(path) as free:
        return not free


@contextmanager
def _held(path: Path, flags: int, kind: int) -> Iterator[bool]:
    """Hold a lock of that *kind* (flock's) until the block ends; yields whether `_try_lock` got it. Never blocks."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield _try_lock(descriptor, kind)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    """Try to lock; False if somebody else has it, True also where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
    return True
