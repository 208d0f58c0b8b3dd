"""Opens files without following a link, reads them within a size limit, replaces them atomically. May block."""

import errno
import os
import socket
import stat
from pathlib import Path

# O_NONBLOCK: opening a FIFO that nobody writes to must not block
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_regular(path: Path | str, flags: int = os.O_RDONLY, folder: int | None = None) -> int:
    """Open a regular file, relative to the open directory `folder` if one is given, and return its descriptor. Raises
    `OSError`, also for a link, a pipe or a device. A file that is created gets mode 0644."""
    try:
        descriptor = os.open(path, flags | _FLAGS, 0o644, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link, and none is followed", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def read(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file. Raises `OSError`, also if it has more than `most_bytes`."""
    with open(open_regular(path), "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes} bytes", str(path))
    return content


def replace(path: Path, text: str) -> None:
    """Replace the file atomically: write a draft beside it, then rename that. Raises `OSError`. The draft's name
    contains the container's, as replicas may share the folder; one that a killed launcher left is removed first."""
    draft = path.with_name(f".{path.name}.{socket.gethostname()}")
    draft.unlink(missing_ok=True)
    with open(open_regular(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        # a path from the environment may have bytes that are no UTF-8: escaped, so that writing never fails
        file.write(text.encode("utf-8", "backslashreplace"))
    os.replace(draft, path)
