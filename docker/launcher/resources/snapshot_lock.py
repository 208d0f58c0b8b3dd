"""Locks the snapshot that a worker serves from, so that `make prune` does not remove it."""

import fcntl
import os
from pathlib import Path

from launcher.resources.weights import WeightsError


class SnapshotLock:
    """A shared lock (`flock`) on one directory at a time. The supervisor owns it; it ends with the process."""

    def __init__(self) -> None:
        self._descriptor = -1

    def take(self, directory: Path) -> None:
        """Lock `directory`, then release the earlier one, at the beginning of a run, before the files are checked. Does
        not wait for a lock. Raises `WeightsError` if `make prune` is removing the directory, or it cannot be opened."""
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise WeightsError(f"{directory} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise WeightsError(f"{directory} is being removed from the volume") from None
        except OSError:  # a shared file system without locks, from which `make prune` removes nothing
            pass
        self.release()
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock, if one is held; `take` does so before it keeps another, the supervisor at the end."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
