"""What this host has: its GPUs as nvidia-smi tells, who holds them, and the state of the weights volume."""

from __future__ import annotations

import csv
import fcntl
import json
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

_MIB = 1 << 20
_TAKES_AT_MOST_S = 60.0  # without the persistence daemon the driver wakes each GPU first
_GPU = ("index", "uuid", "driver_version", "memory.total", "memory.free")
_FABRIC = ("index", "fabric.state", "fabric.status")
_KIND = ("index", "compute_cap")
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
    try:
        sizes = int(total) * _MIB, int(free) * _MIB
        return Gpu(
            int(index), driver, *sizes, fabric.get(index, ""), _holder(slots, uuid), kinds.get(index, "")
        )
    except ValueError:
        raise _strange(", ".join(row)) from None


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
    rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if row]
    for row in rows:
        if len(row) != len(fields) or not row[0].isdigit():
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
    """The slug that has locked the GPU's file on the volume of GPU slots, `""` if nobody has."""
    with ExitStack() as open_files:
        try:
            turn, slot = (
                open_files.enter_context((slots / name).open(encoding="utf-8"))
                for name in ("turn.lock", uuid)
            )
        except FileNotFoundError:
            return ""
        fcntl.flock(turn, fcntl.LOCK_EX)  # so that no launcher takes our look for a worker
        try:
            fcntl.flock(slot, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _signed(slot.read())
    return ""


def _signed(text: str) -> str:
    try:
        return str(json.loads(text)["slug"])
    except (ValueError, KeyError, TypeError):
        return ""  # locked a moment ago and not signed yet
