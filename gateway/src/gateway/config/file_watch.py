"""When to read files again that change while the gateway runs. The key file and the certificate are watched by this."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from gateway.api.errors import ConfigError, NotNow
from gateway.config.file_stamp import Stamp, stamp_of

RECREATE: Final = "docker compose up -d --force-recreate gateway"
Found = TypeVar("Found")


class FileWatch:
    """Watches files that are read together: looked at every second, read when they have changed and stand still. Made
    before their first read, so that a change during it counts."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen = self._stamps()  # at the last look
        self._judged = self._seen  # of the content that was last taken, or found wrong in itself
        self._told: tuple[tuple[Stamp, ...], str] | None = None  # the fault that is_news was last asked about

    def has_changed(self) -> bool:
        """Look at the files, and return whether to `read` now: they are not as last judged, and are as at the look
        before, a second ago. Files that are being written are left alone: half of one might be valid."""
        before, self._seen = self._seen, self._stamps()
        return self._seen == before and self._seen != self._judged

    def read(self, reader: Callable[[], Found]) -> Found | None:
        """Return what `reader` makes of the files as the last look saw them, or None if they have changed since: then
        nothing that it found counts. A thread may do this.

        Raises the reader's ConfigError. Content that is wrong is not read again until it changes; files that cannot be
        used now (NotNow) are tried at each look, as they are after any other exception."""
        seen = self._seen
        try:
            found = reader()
        except NotNow:
            raise
        except ConfigError:
            if self._stamps() != seen:
                return None
            self._judged = seen
            raise
        if self._stamps() != seen:
            return None
        self._judged, self._told = seen, None
        return found

    def is_news(self, fault: str) -> bool:
        """Return whether to log why a `read` failed: not at each look, but again if the files have changed since."""
        before, self._told = self._told, (self._seen, fault)
        return self._told != before

    def _stamps(self) -> tuple[Stamp, ...]:
        """Return the stamps of all files."""
        return tuple([stamp_of(path) for path in self._paths])


def check_linked(path: Path, setting: str) -> None:
    """Raise NotNow if the file has lost its name, as one does behind its Docker mount when another is put in its place.
    The mount then leads to the old file, and no change of the new one can be seen. Raises OSError if there is none."""
    if not path.stat().st_nlink:
        raise NotNow(
            f"{setting}={path} was replaced by another file, which this container does not see: write into the file "
            f"instead of replacing it, and now make the container anew ({RECREATE})"
        )
