"""The GPUs that this container sees, as `nvidia-smi` lists them. A node's GPUs are taken to be of one kind."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_COMMAND = ("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader")
_TAKES_AT_MOST_S = 60.0  # without the persistence daemon the driver wakes each GPU first
_ROW = re.compile(r"(\d+), *([A-Za-z0-9-]+)")


class GpusError(Exception):
    """The GPUs this worker needs cannot be had as the container stands; the text is one line that says why."""


@dataclass(frozen=True, order=True)
class GPU:
    """One GPU: its number in this container, and the name it has everywhere on the host."""

    index: int
    uuid: str


def visible() -> tuple[GPU, ...]:
    """Every GPU of this container, lowest index first; raises `GpusError`."""
    try:
        answer = subprocess.run(  # noqa: S603 - fixed words, no shell
            _COMMAND, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TAKES_AT_MOST_S
        )
    except OSError as error:
        raise GpusError(
            f"nvidia-smi cannot be started ({error.strerror}): this container has no GPU"
        ) from None
    except subprocess.TimeoutExpired:
        raise GpusError(f"nvidia-smi did not answer within {_TAKES_AT_MOST_S:g} s") from None
    if answer.returncode != 0:
        said = " ".join((answer.stdout + answer.stderr).split())
        raise GpusError(f"nvidia-smi ends with {answer.returncode}: {said}")
    return parse(answer.stdout)


def parse(text: str) -> tuple[GPU, ...]:
    """Read a line `index, uuid` a GPU; raises `GpusError` for any other line."""
    return tuple(sorted(_gpu(line.strip()) for line in text.splitlines() if line.strip()))


def environ(gpus: Sequence[GPU]) -> dict[str, str]:
    """What tells vLLM to use these GPUs; nothing for a worker that claims none."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus)} if gpus else {}


def _gpu(line: str) -> GPU:
    row = _ROW.fullmatch(line)
    if row is None:
        raise GpusError(f"nvidia-smi says {line!r} where an index and a UUID were expected")
    return GPU(int(row[1]), row[2])
