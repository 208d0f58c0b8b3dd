"""Lists the GPUs that this container sees, by running nvidia-smi. All GPUs of a host are assumed to be of one kind."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.process import process
from launcher.process.init import CancelledError, Init
from launcher.process.process import Process, StartError

_COMMAND = ("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader")
_TIMEOUT_S = 60.0  # without the persistence daemon the driver wakes each GPU first
_MAX_OUTPUT_BYTES = 256 * 1024  # that are kept of nvidia-smi's; a GPU takes about 50
_MAX_QUOTED = 300  # characters of its output in an error
_ROW = re.compile(r"([0-9]{1,4}), *([A-Za-z0-9-]{1,100})")


class GpusError(Exception):
    """This container cannot give the worker the GPUs it needs; the text is one line that says why."""


@dataclass(frozen=True, order=True)
class GPU:
    """One GPU: its index in this container, and its UUID, which is the same in all containers of the host."""

    index: int
    uuid: str


class _Capture:
    """A sink (`outlet.Sink`) that keeps the first 256 KiB of nvidia-smi's output, for `visible` to parse."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes, /) -> None:
        self._bytes += data[: _MAX_OUTPUT_BYTES - len(self._bytes)]

    @property
    def text(self) -> str:
        return self._bytes.decode("utf-8", "replace")


def visible(init: Init) -> tuple[GPU, ...]:
    """Run nvidia-smi and return every GPU of this container, lowest index first. Blocks in `Init.wait`, 60 s at most.
    Raises `GpusError`, `StartError` where trying again may help, and `CancelledError` when told to stop."""
    out, err = _Capture(), _Capture()
    try:
        program = process.start(_COMMAND, {}, init.spared, out, err)
    except StartError as error:
        if error.is_temporary:
            raise
        raise GpusError(f"nvidia-smi cannot be started ({error.reason}): this container has no GPU") from None
    exit_code = _await_end(program, init)
    if exit_code != 0:
        said = " ".join((out.text + err.text).split())
        raise GpusError(f"nvidia-smi ends with {exit_code}: {said[:_MAX_QUOTED]}")
    return parse(out.text)


def _await_end(program: Process, init: Init) -> int:
    """Wait for nvidia-smi and return its exit code. If it takes too long or a stop signal comes, it is killed and not
    waited for, since it may hang in the driver: `note_end` gets the exit code to expect. Raises as `visible` does."""
    deadline = time.monotonic() + _TIMEOUT_S
    while program.exit_code is None:
        left = deadline - time.monotonic()
        if init.stopping or left <= 0:
            program.note_end(-9)
            if init.stopping:
                raise CancelledError
            raise GpusError(f"nvidia-smi did not answer within {_TIMEOUT_S:g} s")
        wake = init.wait(left, program.readers())
        program.pump(wake.readable)
        if program.pid in wake.ended:
            program.note_end(wake.ended[program.pid])
    return program.exit_code


def parse(text: str) -> tuple[GPU, ...]:
    """Parse nvidia-smi's lines `index, uuid`, lowest index first. Raises `GpusError` for any other line. Pure."""
    return tuple(sorted(_gpu(line.strip()) for line in text.splitlines() if line.strip()))


def environ(gpus: Sequence[GPU]) -> dict[str, str]:
    """Return the variables with which vLLM uses these GPUs only; none for a worker that claims none."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus)} if gpus else {}


def _gpu(line: str) -> GPU:
    """Parse one line of nvidia-smi. Raises `GpusError`."""
    row = _ROW.fullmatch(line)
    if row is None:
        raise GpusError(f"nvidia-smi says {line[:_MAX_QUOTED]!r} where an index and a UUID were expected")
    return GPU(int(row[1]), row[2])
