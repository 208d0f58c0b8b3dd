"""What was measured so far: a file of JSON lines, the first with what is measured, then one for each finished trial. A
line is written when its trial is over, so a session that was killed goes on with the trial that it was in."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.tune.option import Value


class JournalError(Exception):
    """The journal cannot be gone on with; the text is the one line to print."""


@dataclass(frozen=True)
class Trial:
    """One start of vLLM: what differed from serve.yaml, the rounds of its loads (`bench.serve`), or, if it did not
    start or answer, why. Such a failure is a result too: it is not tried again."""

    changes: dict[str, Value]
    loads: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""
    ready_s: float = 0.0
    date: str = ""


class Journal:
    """The file at `path`. `session` is what all trials have in common: other trials cannot be compared with them."""

    def __init__(self, path: Path, session: Mapping[str, Any]) -> None:
        """Open the file, or begin it. Raises JournalError if it is of another session or damaged; OSError."""
        self._path = path
        self.trials: list[Trial] = []
        whole, torn = _lines(path)
        if torn:  # the session was killed in the middle of a line
            os.truncate(path, len(b"".join(whole)))
        if not whole:
            self._append(dict(session))
        elif (differs := _differs(path, whole[0], session)) is not None:
            raise JournalError(
                f"{path} was measured with another {differs}: move it away to begin anew, or ask for the same again"
            )
        self.trials = [_trial(path, number, line) for number, line in enumerate(whole[1:], 2)]

    def add(self, trial: Trial) -> None:
        """Keep a finished trial, on disk too."""
        self.trials.append(trial)
        self._append(asdict(trial))

    def _append(self, entry: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _lines(path: Path) -> tuple[list[bytes], bool]:
    """Return the whole lines, and whether part of one follows."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    return whole, len(whole) < len(lines)


def _differs(path: Path, line: bytes, session: Mapping[str, Any]) -> str | None:
    """Return in what the journal's session differs from this one; None if in nothing. Raises JournalError."""
    before = _read(path, 1, line)
    names = [name for name in {**before, **session} if before.get(name) != session.get(name)]
    return ", ".join(names) or None


def _trial(path: Path, number: int, line: bytes) -> Trial:
    try:
        return Trial(**_read(path, number, line))
    except TypeError:
        raise _damaged(path, number) from None


def _read(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        raise _damaged(path, number) from None
    if not isinstance(entry, dict):
        raise _damaged(path, number)
    return entry


def _damaged(path: Path, number: int) -> JournalError:
    return JournalError(
        f"{path} is damaged in line {number}: remove that line, or move the file away to begin anew"
    )
