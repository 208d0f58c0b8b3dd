"""The GPUs that this container sees, as `nvidia-smi` lists them. All GPUs of a host are assumed to be of one kind."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.process import process
from launcher.process.init import CancelledError, Init
from launcher.process.process import Process, StartError

_COMMAND = ("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader")
_TIMEOUT_S = 60.0  # without the persistence daemon the driver wakes each GPU first
_KEPT_BYTES = 256 * 1024
_SHOWN = 300
_ROW = re.compile(r"([0-9]{1,4}), *([A-Za-z0-9-]{1,100})")


class GpusError(Exception):
    """This container cannot provide the GPUs that the worker needs; the text is one line that says why."""


@dataclass(frozen=True, order=True)
class GPU:
    """One GPU: its number in this container, and the name it has everywhere on the host."""

    index: int
    uuid: str


class _Kept:
    """A sink that keeps the beginning of a program's output."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes, /) -> None:
        self._bytes += data[: _KEPT_BYTES - len(self._bytes)]

    @property
    def text(self) -> str:
        return self._bytes.decode("utf-8", "replace")


def visible(init: Init) -> tuple[GPU, ...]:
    """Every GPU of this container, lowest index first.

    Raises `GpusError`, `StartError` where trying again may help, and `CancelledError` when told to stop.
    """
    out, err = _Kept(), _Kept()
    try:
        program = process.start(_COMMAND, {}, init.others, out, err)
    except StartError as error:
        if error.is_temporary:
            raise
        raise GpusError(f"nvidia-smi cannot be started ({error.reason}): this container has no GPU") from None
    exit_code = _await_end(program, init)
    if exit_code != 0:
        said = " ".join((out.text + err.text).split())
        raise GpusError(f"nvidia-smi ends with {exit_code}: {said[:_SHOWN]}")
    return parse(out.text)


def _await_end(program: Process, init: Init) -> int:
    """Its exit code. One that takes too long is abandoned: inside the driver not even SIGKILL ends it."""
    deadline = time.monotonic() + _TIMEOUT_S
    while program.exit_code is None:
        left = deadline - time.monotonic()
        if init.stopping or left <= 0:
            program.ended(-9)
            if init.stopping:
                raise CancelledError
            raise GpusError(f"nvidia-smi did not answer within {_TIMEOUT_S:g} s")
        wake = init.wait(left, program.readers())
        program.pump(wake.readable)
        if program.pid in wake.ended:
            program.ended(wake.ended[program.pid])
    return program.exit_code


def parse(text: str) -> tuple[GPU, ...]:
    """Read a line `index, uuid` a GPU; raises `GpusError` for any other line."""
    return tuple(sorted(_gpu(line.strip()) for line in text.splitlines() if line.strip()))


def environ(gpus: Sequence[GPU]) -> dict[str, str]:
    """The environment that makes vLLM use these GPUs; empty for a worker that claims none."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus)} if gpus else {}


def _gpu(line: str) -> GPU:
    row = _ROW.fullmatch(line)
    if row is None:
        raise GpusError(f"nvidia-smi says {line[:_SHOWN]!r} where an index and a UUID were expected")
    return GPU(int(row[1]), row[2])
