"""What this host has: its GPUs as nvidia-smi tells, who holds them, and the state of the weights volume."""

import csv
import fcntl
import os
import re
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cards import documents

_MIB = 1 << 20
_TAKES_AT_MOST_S = 60.0  # without the persistence daemon the driver wakes each GPU first
_GPU = ("index", "uuid", "driver_version", "memory.total", "memory.free")
_FABRIC = ("index", "fabric.state", "fabric.status")
_KIND = ("index", "compute_cap")
_COUNT = re.compile(r"[0-9]{1,9}")
_UUID = re.compile(r"[A-Za-z0-9-]{1,100}")
_SIGNATURE_BYTES = 4096
_TURN_WITHIN_S = 5.0
_LOOK_AGAIN_S = 0.01
_NOT_THERE = ("N/A", "[N/A]", "Not Supported", "[Not Supported]")


class HostError(Exception):
    """The host cannot be asked; the text is one sentence that says why and what to do."""


@dataclass(frozen=True)
class Gpu:
    """A GPU with its memory in bytes.

    `fabric` is the state of its NVSwitch fabric: `Completed` where that works, empty where there is none.
    `holder` is the slug of the worker that holds it, empty if nobody does.
    `compute_capability` is such as `9.0`, empty where the driver does not tell.
    """

    index: int
    driver: str
    total_bytes: int
    free_bytes: int
    fabric: str = ""
    holder: str = ""
    compute_capability: str = ""


def gpus(slots: Path, nvidia_smi: str = "nvidia-smi") -> tuple[Gpu, ...]:
    """Every GPU that this container sees. Raises HostError."""
    fabric, kinds = _fabric(nvidia_smi), _kinds(nvidia_smi)
    return tuple(_gpu(row, fabric, kinds, slots) for row in _rows(nvidia_smi, _GPU))


def _gpu(row: list[str], fabric: dict[str, str], kinds: dict[str, str], slots: Path) -> Gpu:
    index, uuid, driver, total, free = row
    if not _UUID.fullmatch(uuid) or not all(map(_COUNT.fullmatch, (index, total, free))):
        raise _strange(", ".join(row))
    sizes = int(total) * _MIB, int(free) * _MIB
    return Gpu(int(index), driver, *sizes, fabric.get(index, ""), _holder(slots, uuid), kinds.get(index, ""))


def _fabric(nvidia_smi: str) -> dict[str, str]:
    """By a GPU's index the state of its fabric."""
    rows = _rows_if_known(nvidia_smi, _FABRIC)
    return {index: _fabric_state(state, status) for index, state, status in rows}


def _fabric_state(state: str, status: str) -> str:
    if state in _NOT_THERE:
        return ""
    return state if status in ("Success", *_NOT_THERE) else f"{state}, {status}"


def _kinds(nvidia_smi: str) -> dict[str, str]:
    """By a GPU's index its compute capability."""
    rows = _rows_if_known(nvidia_smi, _KIND)
    return {index: "" if kind in _NOT_THERE else kind for index, kind in rows}


def _rows_if_known(nvidia_smi: str, fields: tuple[str, ...]) -> list[list[str]]:
    """As `_rows`; no row from a driver too old to know the question."""
    try:
        return _rows(nvidia_smi, fields)
    except HostError as error:
        if "not a valid field" in str(error):
            return []
        raise


def _rows(nvidia_smi: str, fields: tuple[str, ...]) -> list[list[str]]:
    text = _ask(nvidia_smi, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    try:
        rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if row]
    except csv.Error:
        raise _strange(text) from None
    for row in rows:
        if len(row) != len(fields) or not _COUNT.fullmatch(row[0]):
            raise _strange(", ".join(row))
    return rows


def _ask(*words: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 - fixed words, no shell
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TAKES_AT_MOST_S,
        )
    except OSError as error:
        raise HostError(
            f"nvidia-smi cannot be started ({error.strerror}): install NVIDIA's driver and container toolkit "
            "on the host"
        ) from None
    except subprocess.TimeoutExpired:
        raise HostError(
            f"nvidia-smi did not answer within {_TAKES_AT_MOST_S:g} s: a GPU hangs, look for Xid in the host's "
            "kernel log"
        ) from None
    if answer.returncode != 0:
        said = " ".join((answer.stdout + answer.stderr).split())
        raise HostError(f"nvidia-smi ended with {answer.returncode}: {said[:300] or 'it said nothing'}")
    return answer.stdout


def _strange(said: str) -> HostError:
    return HostError(
        f"nvidia-smi said {said[:200]!r}, which tells nothing of a GPU: run nvidia-smi on the host"
    )


def _holder(slots: Path, uuid: str) -> str:
    """The slug that has locked the GPU's file on the volume of GPU slots, `""` if nobody has. Raises HostError."""
    with ExitStack() as open_files:
        try:
            turn, slot = (_opened(slots / name, open_files) for name in ("turn.lock", uuid))
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise HostError(f"{error.filename} cannot be opened ({error.strerror}): remove it") from None
        _await_turn(turn, slots / "turn.lock")  # so that no launcher takes our look for a worker
        return _signed(slot) if not _locked(slot, fcntl.LOCK_SH) else ""


def _opened(path: Path, open_files: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    open_files.callback(os.close, descriptor)
    return descriptor


def _await_turn(turn: int, path: Path) -> None:
    deadline = time.monotonic() + _TURN_WITHIN_S
    while not _locked(turn, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            raise HostError(
                f"{path} has been locked for {_TURN_WITHIN_S:g} s: a launcher hangs while it claims its GPUs, "
                "look for it with docker compose ps and stop it"
            )
        time.sleep(_LOOK_AGAIN_S)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signed(slot: int) -> str:
    """What the holder has written, if that is a name."""
    try:
        slug = documents.parse_json(os.pread(slot, _SIGNATURE_BYTES, 0))["slug"]
    except (ValueError, KeyError, TypeError):
        return ""  # locked a moment ago and not signed yet
    return slug if isinstance(slug, str) and re.fullmatch(r"[a-z0-9][a-z0-9-]{0,100}", slug) else ""
