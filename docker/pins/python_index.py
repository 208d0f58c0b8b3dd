"""The Python index, by way of pip and its own configuration: no address of it stands in this repository."""

import re
import subprocess
import sys
from pathlib import Path

from pins.errors import HashError, NoAnswerError, NoWheelError

_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def download(distribution: str, version: str, directory: Path) -> Path:
    """Fetches a release's wheel into `directory`. Raises NoWheelError, HashError, NoAnswerError."""
    wanted = f"{distribution}=={version}"
    words = ["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "-d", str(directory), wanted]
    done = subprocess.run([*_PIP, *words], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise _failure(wanted, done.stderr)
    return next(directory.glob("*.whl"))


def _failure(wanted: str, said: str) -> NoWheelError | HashError | NoAnswerError:
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    if "DO NOT MATCH THE HASHES" in said:
        return HashError(f"{wanted}: the download has another hash than pip's index declares")
    if "Retrying (" in said or not errors:
        return NoAnswerError(
            f"{wanted}: no index of this host's pip answers (pip config list shows which it asks)"
        )
    return NoWheelError(f"{wanted}: this host's pip finds no such wheel ({errors[-1]})")


def offered(distribution: str, timeout_s: float = 20.0) -> frozenset[str]:
    """The versions that pip could install here; none if no index answered within `timeout_s`."""
    words = ["index", "versions", "--pre", "--timeout", "5", "--retries", "0", distribution]
    try:
        done = subprocess.run(  # noqa: S603
            [*_PIP, *words], capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return frozenset()
    found = re.search(r"^Available versions: (.+)$", done.stdout, re.MULTILINE)
    return frozenset(found[1].split(", ")) if found else frozenset()
