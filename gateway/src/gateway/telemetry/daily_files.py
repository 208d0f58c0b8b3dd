"""One file of lines for each day (UTC) in a folder, of which the old ones are deleted. The processes of a gateway
append to the same file. Called by the audit log's writing thread, and by one that `AuditTrail.keep` starts."""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from gateway.telemetry.log_writer import write

NAME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.jsonl")
FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
END: Final = b"\n"


class DailyFiles:
    """The files of one folder. days: for how many days before today a file is kept; clock: Unix seconds."""

    def __init__(self, folder: Path, days: int, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._days = days
        self._clock = clock

    def prepare(self) -> None:
        """Make the folder, readable by this user alone, and see that today's file can be written. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(self._open())

    def append(self, lines: bytes) -> None:
        """Append whole lines to today's file. Raises OSError. The file is opened each time, so that one that somebody
        has moved or deleted is made again, and a new day begins a new one."""
        descriptor = self._open()
        try:
            write(descriptor, END + lines if is_torn(descriptor) else lines)
        finally:
            os.close(descriptor)

    def sweep(self) -> list[str]:
        """Delete the files that are older than they may be, and return their names. Raises OSError."""
        names = expired([path.name for path in self._folder.iterdir()], self._today(), self._days)
        for name in names:
            with suppress(FileNotFoundError):  # another process was first
                (self._folder / name).unlink()
        return names

    def _open(self) -> int:
        """Return a descriptor of today's file, made for this user alone. A link is not followed. Raises OSError."""
        return os.open(self._folder / f"{self._today()}.jsonl", FLAGS, 0o600)

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock(), UTC).date()


def is_torn(descriptor: int) -> bool:
    """Return whether the file's last line has no end: the disk was full, or the host went down."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != END


def expired(names: list[str], today: date, days: int) -> list[str]:
    """Return those of `names` whose day is more than `days` before `today`; names of another form are left alone."""
    oldest = (today - timedelta(days)).isoformat()
    return sorted(name for name in names if (found := NAME.fullmatch(name)) and found[1] < oldest)
