"""The right to write what only one of several processes may, by a lock on a file that all of them see."""

import fcntl
import os
from pathlib import Path
from typing import Final

FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Claim:
    """One process's claim. The kernel gives the lock up when the process ends, however it does, so another can have it
    then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1  # of the locked file, once it is ours

    def is_ours(self) -> bool:
        """Return whether this process has the right, which it takes if nobody else has it. If the file cannot be
        locked, it has: better twice than never."""
        if self._descriptor >= 0:
            return True
        try:
            descriptor = os.open(self._path, FLAGS, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            return True
        self._descriptor = descriptor
        return True
