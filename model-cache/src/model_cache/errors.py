"""Every way a run can fail, each with the exit code that tells an operator's tools what to do next.

    JobError
    ├── ConfigError      2  a setting or the volume's rights are wrong; nothing was tried
    ├── RetryableError   3  the hub or the network failed; what arrived is kept, run again
    ├── IntegrityError   4  the listing or the bytes cannot be trusted; nothing was published
    ├── NoSpaceError     5  the volume is too small; what arrived is kept
    └── AccessError      6  a source refused: no such model or file, or no right to it; or none lists one

The text of each is one line that says what is wrong and what to do.
"""

import sys
from collections.abc import Sequence
from typing import ClassVar


class JobError(Exception):
    """The run ends without a published snapshot."""

    exit_code: ClassVar[int]


class ConfigError(JobError):
    """An operator must change a setting, the volume's ownership, or what a command was given."""

    exit_code = 2


class RetryableError(JobError):
    """The same command may succeed later; it resumes from what is staged."""

    exit_code = 3


class IntegrityError(JobError):
    """A listing is unsafe or incomplete, a record cannot be trusted, or bytes differ from their sha256."""

    exit_code = 4


class NoSpaceError(JobError):
    """The volume, or the disk of an export, has too few free bytes or inodes."""

    exit_code = 5


class AccessError(JobError):
    """A source answered 401, 403 or 404, or lacks a file; or no source that answers has a listing."""

    exit_code = 6


def unreadable(name: str, error: OSError) -> RetryableError:
    """Return the error for *name* on a carried disk (archive, `dir:`): its OSError would be taken for the volume's."""
    return RetryableError(f"{name} cannot be read ({error.strerror}); check that disk, then run again")


def combined(errors: Sequence[JobError]) -> JobError:
    """Return one error for all of *errors*, in order of time, for `Sources` once no source is left; the last one's text
    comes first. Its type is the most hopeful one: if one of them is temporary, running again may help."""
    texts = list(dict.fromkeys(str(error) for error in reversed(errors)))  # each once
    kinds = (RetryableError, NoSpaceError, IntegrityError, AccessError, ConfigError)  # most hopeful first
    kind = next(kind for kind in kinds if any(isinstance(error, kind) for error in errors))
    return kind("; before that: ".join(texts))


def print_error(error: JobError) -> int:
    """Print the one line of an error that ends a program; returns its exit code."""
    sys.stderr.write(f"model-cache: {error}\n")
    return error.exit_code
