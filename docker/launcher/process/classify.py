"""Decides from exit code and last lines why a run of vLLM ended, and so whether to start it again. Pure. A
configuration error would recur at every start, after minutes of loading, so the launcher waits for a person. Anything
else is a crash and worth another try, and so is any end of a vLLM that had answered /health. A hang is a run that the
launcher ended because it made no progress."""

import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Why a run ended that nobody stopped: the supervisor waits for a person (configuration) or starts vLLM again."""

    CONFIGURATION = "configuration"
    CRASH = "crash"
    HANG = "hang"


@dataclass(frozen=True)
class Verdict:
    """The kind of end, and its cause in a line: vLLM's own words (at most 600 characters; None if it named none), for a
    hang what has not moved, or why vLLM could not be started."""

    kind: Kind
    cause: str | None = None


USAGE_EXIT_CODE = 2  # of argparse, for an option it does not know or a value it cannot read
NOT_FOUND_EXIT_CODE = 127  # of a shell (`LAUNCHER_COMMAND` may name one), for a program that is not there
# of vLLM's lines: which of its processes said it; level, time and place in the code
_PREFIX = re.compile(r"^(?:\([^()]*\) )?(?:(?:ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] )?")
_ERROR = re.compile(r"(?:[A-Za-z_]\w*\.)*(?P<type>[A-Z]\w*(?:Error|Exception|Interrupt)): (?P<text>.+)")
_PYDANTIC_ERROR = re.compile(r"\d+ validation errors? for ")  # the first line of a pydantic error
_USAGE_ERROR = re.compile(r"^\S.*?: error: .+")  # argparse's
# vLLM's parent processes only report that a child failed; the child's own error comes before theirs
_REPORT = re.compile(r"See root cause above|See stack trace for root cause|check the stack trace above")

# types of exceptions that mean a wrong setting, with a pattern that their text must match (empty: any text)
_CONFIGURATION_ERRORS = {
    "ValidationError": "",
    "VLLMValidationError": "",
    "ValueError": "",
    "NotImplementedError": "",
    "ImportError": "",
    "ModuleNotFoundError": "",
    "KeyError": r"invalid (?:tool call|reasoning) parser",
    "FileNotFoundError": r"\.ya?ml\b",
}
# a ValueError of vLLM that goes away once another process has freed its memory
_TEMPORARY = re.compile(r"(?:Free|Available) memory on .* is\s+less than")

_CAUSE_LIMIT = 600  # characters


def classify(
    exit_code: int, lines: Sequence[str], *, has_answered: bool, standstill: str | None = None
) -> Verdict:
    """Judge the end of a run that nobody had stopped. `exit_code` is negative for a signal (-9: killed, often for want
    of memory), which is a crash, as 0 is; `lines` are the last lines vLLM printed, oldest first; `has_answered` is
    whether it answered /health; `standstill` is why the launcher ended the run, if it did."""
    if standstill is not None:
        return Verdict(Kind.HANG, standstill)
    if exit_code in (USAGE_EXIT_CODE, NOT_FOUND_EXIT_CODE) and not has_answered:
        return Verdict(Kind.CONFIGURATION, _last_match(lines, _USAGE_ERROR) or _last_line(lines))
    cause = _root_cause(lines)
    if exit_code > 0 and not has_answered and cause is not None and _is_configuration(cause):
        return Verdict(Kind.CONFIGURATION, cause)
    return Verdict(Kind.CRASH, cause)


def signal_name(exit_code: int) -> str | None:
    """Return the name of the signal that a negative exit code stands for, e.g. `SIGKILL`; None for other codes."""
    if exit_code >= 0:
        return None
    try:
        return signal.Signals(-exit_code).name
    except ValueError:  # a real-time signal has no name
        return f"signal {-exit_code}"


def _is_configuration(cause: str) -> bool:
    """Return whether the cause is an error that comes with every start: of a known type, with text that proves it."""
    found = _ERROR.match(cause)
    if found is None or _TEMPORARY.search(cause):
        return False
    proof = _CONFIGURATION_ERRORS.get(found["type"])
    return proof is not None and re.search(proof, cause) is not None


def _root_cause(lines: Sequence[str]) -> str | None:
    """Return the last exception that is not a parent's report of a failed child, with its explanation; else None."""
    bare = [_PREFIX.sub("", line, count=1) for line in lines]
    for index in range(len(bare) - 1, -1, -1):
        if _ERROR.match(bare[index]) and not _REPORT.search(bare[index]):
            return _joined(bare[index], *_explanation(bare[index : index + 3]))
    return None


def _explanation(lines: Sequence[str]) -> Iterable[str]:
    """Return the lines below a pydantic error (`lines[0]`) that name its first field and reason; none for others."""
    if not _PYDANTIC_ERROR.search(lines[0]):
        return ()
    return (line.partition(" [type=")[0] for line in lines[1:] if "For further information" not in line)


def _joined(*parts: str) -> str:
    """Return the lines that are not blank as one `Verdict.cause`, cut to its bound."""
    return " ".join(part.strip() for part in parts if part.strip())[:_CAUSE_LIMIT]


def _last_match(lines: Sequence[str], pattern: re.Pattern[str]) -> str | None:
    """Return the last line that begins as `pattern` says (argparse's own message), as a cause; None if none does."""
    return next((_joined(line) for line in reversed(lines) if pattern.match(line)), None)


def _last_line(lines: Sequence[str]) -> str | None:
    """Return the last line that is not blank, as a cause: what a shell said before it ended; None if there is none."""
    return next((_joined(line) for line in reversed(lines) if line.strip()), None)
