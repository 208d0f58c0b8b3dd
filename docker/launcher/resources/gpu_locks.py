"""One file per GPU on a volume that all workers of the host share: a GPU belongs to whoever has locked its file.

The lock (`flock`) is the launcher process's own: it survives every crash of vLLM and ends with the launcher. The file's
content (`{"slug", "container", "since"}`) only tells people and other launchers who holds it; without the lock it means
nothing and is overwritten. A claim takes all GPUs that are needed or none. Launchers claim one at a time, guarded by
`turn.lock` and without waiting for a GPU, so none sees half of another's claim and there is no deadlock. Other
containers write to the volume too: no link is followed, and the wait for `turn.lock` is bounded.
"""

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

_TURN = "turn.lock"
_TURN_WITHIN_S = 2.0
_LOOK_AGAIN_S = 0.01
_HOLDER_BYTES = 4096
_NAME = r"[!-~]+"


@dataclass(frozen=True)
class Holder:
    """Who holds a GPU: slug, the container's host name (Docker's short id) and since when (UTC)."""

    slug: str
    container: str = field(default_factory=socket.gethostname)
    since: str = field(default_factory=timestamp)

    def __str__(self) -> str:
        """For people."""
        return f"{self.slug} (container {self.container}, since {self.since})"


class BusyError(Exception):
    """Others hold too many of the GPUs, or hold `turn.lock`; the text says who holds what."""


class GpuLocks:
    """One worker's GPUs: none at first; once claimed, the same ones until `release`."""

    def __init__(self, directory: Path, count: int, slug: str) -> None:
        """For `count` GPUs, with the locks in `directory`."""
        self._directory = directory
        self._count = count
        self._slug = slug
        self._mine: tuple[GPU, ...] = ()
        self._locks = ExitStack()

    @property
    def are_claimed(self) -> bool:
        """Whether this worker has all the GPUs it needs."""
        return len(self._mine) == self._count

    def claim(self, seen: tuple[GPU, ...]) -> tuple[GPU, ...]:
        """This worker's GPUs: the lowest free ones of those `seen`; raises `BusyError` or `GpusError`."""
        if self.are_claimed:
            return self._mine
        if len(seen) < self._count:
            raise GpusError(f"{self._count} GPUs needed, {len(seen)} visible in this container")
        try:
            self._mine = self._take(seen)
        except OSError as error:  # which names a file without its directory
            raise GpusError(f"{self._directory / str(error.filename or '')}: {error.strerror}") from None
        return self._mine

    def release(self) -> None:
        """Release every lock."""
        self._mine = ()
        self._locks.close()

    def _take(self, seen: tuple[GPU, ...]) -> tuple[GPU, ...]:
        with ExitStack() as turn, ExitStack() as locks:
            folder = _kept(os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY), turn)
            self._await_turn(_kept(_opened(_TURN, folder), turn))
            files = {gpu: _kept(_opened(gpu.uuid, folder), locks) for gpu in seen}
            held = {gpu: _holder(file) for gpu, file in files.items() if not _locked(file)}
            free = tuple(gpu for gpu in seen if gpu not in held)
            if len(free) < self._count:
                raise BusyError(f"{self._count} needed, {len(free)} of {len(files)} free: {_who_holds(held)}")
            mine, spare = free[: self._count], free[self._count :]
            me = json.dumps(asdict(Holder(self._slug))).encode()
            for gpu in mine:
                os.ftruncate(files[gpu], 0)
                os.pwrite(files[gpu], me, 0)
            for gpu in spare:
                fcntl.flock(files[gpu], fcntl.LOCK_UN)
            self._locks = locks.pop_all()
            return mine

    def _await_turn(self, turn: int) -> None:
        deadline = time.monotonic() + _TURN_WITHIN_S
        while not _locked(turn):
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"{self._directory / _TURN} has been locked by another process for {_TURN_WITHIN_S:g} s: "
                    "none can claim GPUs"
                )
            time.sleep(_LOOK_AGAIN_S)


def _opened(name: str, folder: int) -> int:
    return safe_open.open_regular(name, os.O_RDWR | os.O_CREAT, folder)  # not inherited: no rank keeps a lock


def _kept(descriptor: int, stack: ExitStack) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: int) -> Holder | None:
    """Who the file says holds it; None if that cannot be read."""
    try:
        said = Fields.of(document.parse(os.pread(file, _HOLDER_BYTES, 0)))
        names = (said.text(name, _NAME, most=128) for name in ("slug", "container", "since"))
        return Holder(*names)
    except ValueError:
        return None


def _who_holds(held: Mapping[GPU, Holder | None]) -> str:
    by_holder: dict[Holder | None, list[str]] = {}
    for gpu, holder in held.items():
        by_holder.setdefault(holder, []).append(str(gpu.index))
    return "; ".join(
        f"GPU {', '.join(indexes)} held by {holder or 'a launcher that left no name'}"
        for holder, indexes in by_holder.items()
    )
