"""Who has a directory: a worker that serves from it holds a shared lock on it, whoever removes it an exclusive one."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Lock *path*, a file or a directory, until the block ends; yields whether nobody else has it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody has it now. Raises OSError."""
    with exclusive(path) as free:
        return not free


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
