"""Tell one content of a file from another without reading it, for `FileWatch`."""

from pathlib import Path

Stamp = tuple[int, ...] | None  # None: the file cannot be looked at


def stamp_of(path: Path) -> Stamp:
    """Return what changes with a file's content or rights; a link is followed to what it names now. Of the two times of
    change one counts changes of mode and owner too, and nobody can set it. Replaced, a file has no links."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (
        status.st_dev, status.st_ino, status.st_nlink,
        status.st_mtime_ns, status.st_ctime_ns, status.st_size,
    )  # fmt: skip
