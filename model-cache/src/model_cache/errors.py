"""Every way a run can fail, each with the exit code that tells an operator's tools what to do next.

    JobError
    ├── ConfigError      2  a setting or the volume's rights are wrong; nothing was tried
    ├── RetryableError   3  the hub or the network failed; what arrived is kept, run again
    ├── IntegrityError   4  the listing or the bytes cannot be trusted; nothing was published
    ├── NoSpaceError     5  the volume is too small; what arrived is kept
    └── AccessError      6  the hub refused: no such model, or no right to it

The text of each is one line that says what is wrong and what to do.
"""

import sys
from collections.abc import Sequence
from typing import ClassVar


class JobError(Exception):
    """The run ends without a published snapshot."""

    exit_code: ClassVar[int]


class ConfigError(JobError):
    """An operator must change a setting or the volume's ownership."""

    exit_code = 2


class RetryableError(JobError):
    """The same command may succeed later; it resumes from what is staged."""

    exit_code = 3


class IntegrityError(JobError):
    """The hub's listing is unsafe or incomplete, or bytes differ from their sha256."""

    exit_code = 4


class NoSpaceError(JobError):
    """The volume has too few free bytes or inodes."""

    exit_code = 5


class AccessError(JobError):
    """The hub answered 401, 403 or 404."""

    exit_code = 6


def unreadable(name: str, error: OSError) -> RetryableError:
    """Return the error for a disk that was carried here and fails, whose OSError would count as the volume's."""
    return RetryableError(f"{name} cannot be read ({error.strerror}); check that disk, then run again")


def combined(errors: Sequence[JobError]) -> JobError:
    """Return one error for all of *errors*, in order of time, once no source is left; the last one's text comes first.
    Its type is the most hopeful one: if one of them is temporary, running again may help."""
    texts = list(dict.fromkeys(str(error) for error in reversed(errors)))  # each once
    kinds = (RetryableError, NoSpaceError, IntegrityError, AccessError, ConfigError)
    kind = next(kind for kind in kinds if any(isinstance(error, kind) for error in errors))
    return kind("; before that: ".join(texts))


def print_error(error: JobError) -> int:
    """Print the one line of an error that ends a program; returns its exit code."""
    sys.stderr.write(f"model-cache: {error}\n")
    return error.exit_code
