"""Claims GPUs for a worker: one lock file for each GPU on the volume `gpu-slots`, which all workers of a host share. A
GPU belongs to the launcher that has locked its file (`flock`); the lock survives every crash of vLLM and ends with the
launcher. The file's content (`{"slug", "container", "since"}`) only tells who holds it; without the lock it means
nothing and is overwritten. A claim takes all GPUs that are needed or none. Launchers claim one after the other, under
the lock `turn.lock` and without waiting for a GPU, so none sees half of another's claim and there is no deadlock. Other
containers can write to the volume: no link is followed, and the wait for `turn.lock` is bounded."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from launcher.files import document, safe_open
from launcher.files.document import Fields
from launcher.resources.gpus import GPU, GpusError
from launcher.status.logs import timestamp

_TURN_FILE = "turn.lock"
_TURN_WITHIN_S = 2.0  # longest wait for `turn.lock`
_LOOK_AGAIN_S = 0.01  # between two tries to lock it
_HOLDER_BYTES = 4096  # that are read of a lock file; a longer one has no valid holder
_NAME = r"[!-~]+"  # of a holder, 128 bytes at most: nothing that could break a log line


@dataclass(frozen=True)
class Holder:
    """The content of a lock file: the holder's slug, host name (Docker's short container id), and since when (UTC)."""

    slug: str
    container: str = field(default_factory=socket.gethostname)
    since: str = field(default_factory=timestamp)

    def __str__(self) -> str:
        """Return it as a log line says it."""
        return f"{self.slug} (container {self.container}, since {self.since})"


class BusyError(Exception):
    """Other workers hold too many GPUs, or another process keeps `turn.lock`; the text says who holds what."""


class GpuLocks:
    """The locks on one worker's GPUs: none at first; once claimed, the same until `release`. The supervisor owns it."""

    def __init__(self, directory: Path, count: int, slug: str) -> None:
        """Claim nothing yet. `count` is how many GPUs the worker needs, `directory` where the lock files are."""
        self._directory = directory
        self._count = count
        self._slug = slug
        self._mine: tuple[GPU, ...] = ()
        self._locks = ExitStack()

    @property
    def are_claimed(self) -> bool:
        """Whether this worker holds all the GPUs it needs, from an earlier run or as it needs none."""
        return len(self._mine) == self._count

    def claim(self, seen: tuple[GPU, ...]) -> tuple[GPU, ...]:
        """Lock and return the free GPUs with the lowest indexes among `seen`, or those held already. Runs in a thread,
        as it may block for 2 s. Raises `BusyError` if too few are free, `GpusError` if waiting cannot help."""
        if self.are_claimed:
            return self._mine
        if len(seen) < self._count:
            raise GpusError(f"{self._count} GPUs needed, {len(seen)} visible in this container")
        try:
            self._mine = self._take(seen)
        except OSError as error:  # its filename lacks the directory
            raise GpusError(f"{self._directory / str(error.filename or '')}: {error.strerror}") from None
        return self._mine

    def release(self) -> None:
        """Release all GPUs, if any: at the launcher's end, or when it waits for a person to mend its configuration."""
        self._mine = ()
        self._locks.close()

    def _take(self, seen: tuple[GPU, ...]) -> tuple[GPU, ...]:
        """Work of `claim`: try to lock every GPU, keep the first free ones and release the rest, or all if too few."""
        with ExitStack() as turn, ExitStack() as locks:
            folder = _close_with(os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY), turn)
            self._await_turn(_close_with(_open_lock_file(_TURN_FILE, folder), turn))
            files = {gpu: _close_with(_open_lock_file(gpu.uuid, folder), locks) for gpu in seen}
            held = {gpu: _holder(file) for gpu, file in files.items() if not _try_lock(file)}
            free = tuple(gpu for gpu in seen if gpu not in held)
            if len(free) < self._count:
                holders = _describe_holders(held)
                raise BusyError(f"{self._count} needed, {len(free)} of {len(files)} free: {holders}")
            mine, spare = free[: self._count], free[self._count :]
            me = json.dumps(asdict(Holder(self._slug))).encode()
            for gpu in mine:
                os.ftruncate(files[gpu], 0)
                os.pwrite(files[gpu], me, 0)
            for gpu in spare:  # their files stay open until `release`
                fcntl.flock(files[gpu], fcntl.LOCK_UN)
            self._locks = locks.pop_all()
            return mine

    def _await_turn(self, turn: int) -> None:
        """Lock the open file `turn.lock`, so that no other launcher claims meanwhile. Raises `BusyError` after 2 s."""
        deadline = time.monotonic() + _TURN_WITHIN_S
        while not _try_lock(turn):
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"{self._directory / _TURN_FILE} has been locked by another process for {_TURN_WITHIN_S:g} s: "
                    "none can claim GPUs"
                )
            time.sleep(_LOOK_AGAIN_S)


def _open_lock_file(name: str, folder: int) -> int:
    """Open a lock file in `folder`, made if it is not there; closed on exec, so that vLLM inherits no lock."""
    return safe_open.open_regular(name, os.O_RDWR | os.O_CREAT, folder)


def _close_with(descriptor: int, stack: ExitStack) -> int:
    """Let `stack` close the descriptor, which also releases its lock; return the descriptor."""
    stack.callback(os.close, descriptor)
    return descriptor


def _try_lock(file: int) -> bool:
    """Lock the open file if nobody else has; return whether it is locked now. Never blocks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: int) -> Holder | None:
    """Read who has locked the open file; None if its content is not a holder: anybody may have written it."""
    try:
        said = Fields.of(document.parse(os.pread(file, _HOLDER_BYTES, 0)))
        names = (said.text(name, _NAME, most=128) for name in ("slug", "container", "since"))
        return Holder(*names)
    except ValueError:
        return None


def _describe_holders(held: Mapping[GPU, Holder | None]) -> str:
    """Return one line with the GPUs of each holder, for the text of `BusyError`."""
    by_holder: dict[Holder | None, list[str]] = {}
    for gpu, holder in held.items():
        by_holder.setdefault(holder, []).append(str(gpu.index))
    return "; ".join(
        f"GPU {', '.join(indexes)} held by {holder or 'a launcher that left no name'}"
        for holder, indexes in by_holder.items()
    )
