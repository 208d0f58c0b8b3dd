"""JSON that others may have written, on a volume or a disk: read within bounds, and strictly of one type."""

import errno
import os
import stat
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

MAX_BYTES = 64 << 20
"""Of a READY.json and of a lock file. The launcher has the same bound."""

STRICT = ConfigDict(strict=True, extra="forbid")
"""For the dataclasses that say what a document holds."""

_Kind = TypeVar("_Kind")


class WrongDocumentError(ValueError):
    """The document cannot be used; the text says why, in a few words."""


def content(path: Path, most: int = MAX_BYTES, *, follow_link: bool = False) -> bytes:
    """Return the bytes of the regular file at *path*, never blocking. Raises OSError (FileNotFoundError if there is
    none), and WrongDocumentError for what is no such file, or a link unless *follow_link*, or over *most* bytes."""
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow_link else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise WrongDocumentError("it is a link") from error
        raise
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise WrongDocumentError("it is no regular file")
        if about.st_size > most:
            raise WrongDocumentError(f"it has more than {most:,} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)  # no more, if it grows meanwhile
    finally:
        os.close(descriptor)


def parsed(kind: TypeAdapter[_Kind], text: bytes) -> _Kind:
    """Return the JSON *text* as a value of *kind*. Raises WrongDocumentError, which says the first fault."""
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise WrongDocumentError(f"{place}: {first['msg']}" if place else first["msg"]) from error
