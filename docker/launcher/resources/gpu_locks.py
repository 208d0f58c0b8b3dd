"""One file per GPU on a volume that all workers of the host share; whoever has locked it has the GPU.

The lock (`flock`) belongs to the launcher's process: no crash of vLLM gives it away, and it is gone with the
process, however that ends. What the file says (`{"slug", "container", "since"}`) only tells people and other
launchers who that is; without the lock it means nothing and is overwritten.
A claim takes all GPUs that are needed or none. Launchers claim one after the other, each in a moment and
without waiting for a GPU, so they never see half of another's claim and never wait for each other in a ring.
Other containers write to the volume too: a link there is not followed, and nobody's turn is waited for without end.
"""

from __future__ import annotations

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
_SIGNATURE_BYTES = 4096
_NAME = r"[!-~]+"


@dataclass(frozen=True)
class Holder:
    """Who holds a GPU: slug, the container's host name (Docker's short id) and since when (UTC)."""

    slug: str
    container: str = field(default_factory=socket.gethostname)
    since: str = field(default_factory=timestamp)

    def __str__(self) -> str:
        """As a person wants to read it."""
        return f"{self.slug} (container {self.container}, since {self.since})"


class BusyError(Exception):
    """Others hold too many of the GPUs, or keep everybody from claiming; the text says who holds what."""


class Slots:
    """The slots of one worker: none at first, then, once claimed, the same ones until `release`."""

    def __init__(self, directory: Path, count: int, slug: str) -> None:
        """`count` GPUs of those whose locks lie in `directory`."""
        self._directory = directory
        self._count = count
        self._slug = slug
        self._mine: tuple[GPU, ...] = ()
        self._locks = ExitStack()

    @property
    def are_claimed(self) -> bool:
        """Whether this worker has all it needs."""
        return len(self._mine) == self._count

    def claim(self, seen: tuple[GPU, ...]) -> tuple[GPU, ...]:
        """This worker's GPUs, of those `seen` the lowest that are free; raises `BusyError` or `GpusError`."""
        if not self.are_claimed:
            self._require(seen)
            try:
                self._mine = self._take(seen)
            except OSError as error:
                raise GpusError(self._said(error)) from None
        return self._mine

    def release(self) -> None:
        """Give every slot back."""
        self._mine = ()
        self._locks.close()

    def _require(self, seen: tuple[GPU, ...]) -> None:
        if len(seen) < self._count:
            raise GpusError(f"{self._count} GPUs needed, {len(seen)} visible in this container")

    def _said(self, error: OSError) -> str:
        """The file by its whole path: it was opened by its name alone."""
        return f"{self._directory / str(error.filename or '')}: {error.strerror}"

    def _take(self, seen: tuple[GPU, ...]) -> tuple[GPU, ...]:
        with ExitStack() as turn, ExitStack() as locks:
            folder = _kept(os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY), turn)
            self._await_turn(_kept(_opened(_TURN, folder), turn))
            slots = {gpu: _kept(_opened(gpu.uuid, folder), locks) for gpu in seen}
            held = {gpu: _holder(slot) for gpu, slot in slots.items() if not _locked(slot)}
            free = tuple(gpu for gpu in seen if gpu not in held)
            if len(free) < self._count:
                raise BusyError(f"{self._count} needed, {len(free)} of {len(slots)} free: {_who_holds(held)}")
            mine, spare = free[: self._count], free[self._count :]
            me = Holder(self._slug)
            for gpu in mine:
                _sign(slots[gpu], me)
            for gpu in spare:
                fcntl.flock(slots[gpu], fcntl.LOCK_UN)
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


def _locked(slot: int) -> bool:
    try:
        fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(slot: int, me: Holder) -> None:
    os.ftruncate(slot, 0)
    os.pwrite(slot, json.dumps(asdict(me)).encode(), 0)


def _holder(slot: int) -> Holder | None:
    """Who has signed; None if that cannot be read."""
    try:
        said = Fields.of(document.parse(os.pread(slot, _SIGNATURE_BYTES, 0)))
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
