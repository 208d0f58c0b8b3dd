"""Which file system a directory lies on, by the lines of mountinfo."""

from pathlib import Path

import pytest

from model_cache.storage.filesystem import is_local, type_of

TABLE = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
30 22 0:40 / /weights rw,relatime shared:5 - nfs4 server:/export rw
31 30 0:41 / /weights/local\\040disk rw - xfs /dev/vdb rw
32 22 0:42 / /weights2 rw - fuse.glusterfs vol rw
""".splitlines()


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/home", "ext4"),
        ("/weights", "nfs4"),
        ("/weights/models/x", "nfs4"),
        ("/weights/local disk/x", "xfs"),
        ("/weights2/x", "fuse.glusterfs"),
        ("/weights22", "ext4"),
    ],
)
def test_the_innermost_mount_counts(directory: str, expected: str) -> None:
    """Whole names are compared, and blanks are put back."""
    assert type_of(Path(directory), TABLE) == expected


def test_a_later_mount_covers_an_earlier_one() -> None:
    """Both are in the table."""
    assert type_of(Path("/weights"), [*TABLE, "33 22 0:43 / /weights rw - tmpfs none rw"]) == "tmpfs"


def test_here(tmp_path: Path) -> None:
    """This host's own table can be read."""
    assert isinstance(is_local(tmp_path), bool)
    assert not is_local(Path("/proc"))
