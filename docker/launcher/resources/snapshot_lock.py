"""A shared lock on the snapshot that a worker serves from: while it is held, nothing prunes the snapshot."""

import fcntl
import os
from pathlib import Path

from launcher.resources.weights import WeightsError


class SnapshotLock:
    """A shared lock on one directory at a time. It ends with this process."""

    def __init__(self) -> None:
        self._descriptor = -1

    def take(self, directory: Path) -> None:
        """Lock `directory` in place of the one before; raises `WeightsError` while it is being removed."""
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise WeightsError(f"{directory} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise WeightsError(f"{directory} is being removed from the volume") from None
        except OSError:  # a shared file system without locks: snapshots are not removed from those
            pass
        self.release()
        self._descriptor = descriptor

    def release(self) -> None:
        """Unlock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
