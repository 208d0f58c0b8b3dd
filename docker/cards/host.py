"""Finds this host's GPUs, by running nvidia-smi, and which worker holds each, by looking at the GPU locks."""

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
_TIMEOUT_S = 60.0  # without the persistence daemon the driver wakes each GPU first
_GPU = ("index", "uuid", "driver_version", "memory.total", "memory.free")
_FABRIC = ("index", "fabric.state", "fabric.status")
_CAPABILITY = ("index", "compute_cap")
_COUNT = re.compile(r"[0-9]{1,9}")
_UUID = re.compile(r"[A-Za-z0-9-]{1,100}")
_HOLDER_BYTES = 4096  # that are read of a lock file, as launchers do
_TURN_WITHIN_S = 5.0  # longest wait for `turn.lock`; a launcher that waits for it gives up after 2 s
_LOOK_AGAIN_S = 0.01  # between two tries to lock it
_NOT_THERE = ("N/A", "[N/A]", "Not Supported", "[Not Supported]")  # as nvidia-smi's versions put it


class HostError(Exception):
    """GPUs or volume cannot be examined; the text is one sentence that says why and what to do."""


@dataclass(frozen=True)
class Gpu:
    """A GPU of this host. `fabric` is the state of its NVSwitch fabric: `Completed` if that works, empty if there is
    none. `holder` is the slug of the worker that holds it, empty if none does. `compute_capability` is, for example,
    `9.0`; empty if the driver does not report it."""

    index: int
    driver: str
    total_bytes: int
    free_bytes: int
    fabric: str = ""
    holder: str = ""
    compute_capability: str = ""


def gpus(slots: Path, nvidia_smi: str = "nvidia-smi") -> tuple[Gpu, ...]:
    """Return every GPU that this container sees; `slots` is where volume `gpu-slots` is mounted. Raises HostError."""
    fabric, capabilities = _fabric(nvidia_smi), _capabilities(nvidia_smi)
    return tuple(_gpu(row, fabric, capabilities, slots) for row in _rows(nvidia_smi, _GPU))


def _gpu(row: list[str], fabric: dict[str, str], capabilities: dict[str, str], slots: Path) -> Gpu:
    """Return the GPU of a row of nvidia-smi (sizes in MiB); its UUID names its lock file. Raises HostError."""
    index, uuid, driver, total, free = row
    if not _UUID.fullmatch(uuid) or not all(map(_COUNT.fullmatch, (index, total, free))):
        raise _unexpected(", ".join(row))
    sizes = int(total) * _MIB, int(free) * _MIB
    return Gpu(
        int(index), driver, *sizes, fabric.get(index, ""), _holder(slots, uuid), capabilities.get(index, "")
    )


def _fabric(nvidia_smi: str) -> dict[str, str]:
    """Return the state of the NVSwitch fabric by GPU index; nothing if the driver is too old to know of it."""
    rows = _rows_if_known(nvidia_smi, _FABRIC)
    return {index: _fabric_state(state, status) for index, state, status in rows}


def _fabric_state(state: str, status: str) -> str:
    """Return the state for `Gpu.fabric`, with the status if that is bad; empty if the GPU has no fabric."""
    if state in _NOT_THERE:
        return ""
    return state if status in ("Success", *_NOT_THERE) else f"{state}, {status}"


def _capabilities(nvidia_smi: str) -> dict[str, str]:
    """Return the compute capability by GPU index; nothing if the driver is too old to report it."""
    rows = _rows_if_known(nvidia_smi, _CAPABILITY)
    return {index: "" if kind in _NOT_THERE else kind for index, kind in rows}


def _rows_if_known(nvidia_smi: str, fields: tuple[str, ...]) -> list[list[str]]:
    """Return `_rows`, or no rows if the driver is too old to know one of the fields: then the host may still do."""
    try:
        return _rows(nvidia_smi, fields)
    except HostError as error:
        if "not a valid field" in str(error):  # what nvidia-smi prints for a field that it lacks
            return []
        raise


def _rows(nvidia_smi: str, fields: tuple[str, ...]) -> list[list[str]]:
    """Ask nvidia-smi for the fields of every GPU; return a row for each, with its index first. Raises HostError."""
    text = _run(nvidia_smi, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    try:
        rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if row]
    except csv.Error:
        raise _unexpected(text) from None
    for row in rows:
        if len(row) != len(fields) or not _COUNT.fullmatch(row[0]):
            raise _unexpected(", ".join(row))
    return rows


def _run(*words: str) -> str:
    """Run nvidia-smi, blocking, and return what it printed. Raises HostError, also if it takes longer than 60 s."""
    try:
        answer = subprocess.run(  # noqa: S603 - fixed words, no shell
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
        )
    except OSError as error:
        raise HostError(
            f"nvidia-smi cannot be started ({error.strerror}): install NVIDIA's driver and container toolkit "
            "on the host"
        ) from None
    except subprocess.TimeoutExpired:
        raise HostError(
            f"nvidia-smi did not answer within {_TIMEOUT_S:g} s: a GPU hangs, look for Xid in the host's "
            "kernel log"
        ) from None
    if answer.returncode != 0:
        said = " ".join((answer.stdout + answer.stderr).split())
        raise HostError(f"nvidia-smi ended with {answer.returncode}: {said[:300] or 'it said nothing'}")
    return answer.stdout


def _unexpected(said: str) -> HostError:
    """Return the error to raise for output of nvidia-smi that cannot be parsed."""
    return HostError(
        f"nvidia-smi said {said[:200]!r}, which tells nothing of a GPU: run nvidia-smi on the host"
    )


def _holder(slots: Path, uuid: str) -> str:
    """Return the slug whose launcher has locked the GPU's file on the volume `gpu-slots`; `""` if none has, or there is
    no file, or the file names no slug (`_slug_in`). Takes locks itself for a moment. Raises HostError."""
    with ExitStack() as open_files:
        try:
            turn, slot = (_open(slots / name, open_files) for name in ("turn.lock", uuid))
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise HostError(f"{error.filename} cannot be opened ({error.strerror}): remove it") from None
        _await_turn(turn, slots / "turn.lock")  # or a launcher that claims now takes our lock for a worker's
        return _slug_in(slot) if not _try_lock(slot, fcntl.LOCK_SH) else ""


def _open(path: Path, open_files: ExitStack) -> int:
    """Open the lock file for reading, without following a link or blocking at a pipe; `open_files` closes it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    open_files.callback(os.close, descriptor)
    return descriptor


def _await_turn(turn: int, path: Path) -> None:
    """Lock the open file `turn`, so that no launcher claims GPUs meanwhile. Raises HostError if that takes too long."""
    deadline = time.monotonic() + _TURN_WITHIN_S
    while not _try_lock(turn, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            raise HostError(
                f"{path} has been locked for {_TURN_WITHIN_S:g} s: a launcher hangs while it claims its GPUs, "
                "look for it with docker compose ps and stop it"
            )
        time.sleep(_LOOK_AGAIN_S)


def _try_lock(descriptor: int, kind: int) -> bool:
    """Lock the open file (LOCK_SH or LOCK_EX) unless another process has. Return whether it is locked. Never blocks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _slug_in(slot: int) -> str:
    """Return the slug that the holder has written into the lock file, `""` if there is none."""
    try:
        slug = documents.parse_json(os.pread(slot, _HOLDER_BYTES, 0))["slug"]
    except (ValueError, KeyError, TypeError):
        return ""  # launchers write it before they release `turn.lock`: it is another program's lock or text
    return slug if isinstance(slug, str) and re.fullmatch(r"[a-z0-9][a-z0-9-]{0,100}", slug) else ""
