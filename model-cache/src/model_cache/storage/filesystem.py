"""Which type of file system a directory lies on, and whether hosts may share it."""

import os
from collections.abc import Iterable
from pathlib import Path

_DISKS = {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "reiserfs", "xfs", "zfs"}
_LOCAL = _DISKS | {"overlay", "ramfs", "tmpfs"}  # any other type may be a network's, and counts as shared
_TABLE = Path("/proc/self/mountinfo")  # a line for each mount that this process sees


def is_local(directory: Path) -> bool:
    """Return whether no other host can have it mounted, judging by the type of its file system. Raises OSError."""
    with _TABLE.open(encoding="utf-8", errors="surrogateescape") as table:
        return type_of(Path(os.path.realpath(directory)), table) in _LOCAL


def is_shared(said: str, directory: Path) -> bool:
    """Return whether other hosts may write there: MODEL_CACHE_VOLUME *said* `local` or `shared`; `auto`: by type."""
    return said == "shared" or (said == "auto" and not is_local(directory))


def type_of(directory: Path, table: Iterable[str]) -> str:
    """Return the type of the file system of *directory*, absolute and without links, by mountinfo's lines; or ""."""
    best, found = "", ""
    for line in table:
        mount, _, rest = line.partition(" - ")
        point = _unescaped(mount.split()[4])
        if directory.is_relative_to(point) and len(point) >= len(best):  # of two at one place the later
            best, found = point, rest.split()[0]
    return found


def _unescaped(word: str) -> str:
    """Return the word with mountinfo's octal escapes undone; the backslash last, since what it leaves is no escape."""
    for code, sign in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        word = word.replace(f"\\{code}", sign)
    return word
