"""Files that others write or read too: opened without following a link, read within a bound, replaced in one step."""

import errno
import os
import socket
import stat
from pathlib import Path

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe that nobody writes to must not wait


def open_regular(path: Path | str, flags: int = os.O_RDONLY, folder: int | None = None) -> int:
    """A descriptor of a regular file, in the open directory `folder` if one is given; raises `OSError`.

    Neither a link nor a pipe nor a device passes; a file that `flags` create is readable by everybody.
    """
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
    """The content of a regular file of at most so many bytes; raises `OSError`."""
    with open(open_regular(path), "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes} bytes", str(path))
    return content


def replace(path: Path, text: str) -> None:
    """Replace the file in one step; raises `OSError`. The draft is named after the container, since replicas may share
    the folder; whatever else has its name is removed first.
    """
    draft = path.with_name(f".{path.name}.{socket.gethostname()}")
    draft.unlink(missing_ok=True)
    with open(open_regular(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        # a lone surrogate becomes the escape it came from
        file.write(text.encode("utf-8", "backslashreplace"))
    os.replace(draft, path)
