"""One file per GPU on a volume that all workers of the host share; whoever has locked it has the GPU.

The lock (`flock`) belongs to the launcher's process: no crash of vLLM gives it away, and it is gone with the
process, however that ends. What the file says (`{"slug", "container", "since"}`) only tells people and other
launchers who that is; without the lock it means nothing and is overwritten.
A claim takes all GPUs that are needed or none. Launchers claim one after the other, each in a moment and
without waiting for a GPU, so they never see half of another's claim and never wait for each other in a ring.
"""

from __future__ import annotations

import fcntl
import json
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from launcher.gpus import GPU, GpusError
from launcher.logs import timestamp

_TURN = "turn.lock"


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
    """Others hold too many of the GPUs; the text names who holds which."""

    def __init__(self, needed: int, seen: int, held: Mapping[GPU, Holder | None]) -> None:
        """`held` says which of the `seen` GPUs are not free, and who has them if that can be told."""
        self.slugs = sorted({holder.slug for holder in held.values() if holder})
        super().__init__(f"{needed} needed, {seen - len(held)} of {seen} free: {_who_holds(held)}")


class Slots:
    """The slots of one worker: none at first, then, once claimed, the same ones until `release`."""

    def __init__(self, directory: Path, count: int, slug: str, see: Callable[[], tuple[GPU, ...]]) -> None:
        """`count` GPUs of those that `see` finds; it is asked once, and not at all if `count` is 0."""
        self._directory = directory
        self._count = count
        self._slug = slug
        self._see = see
        self._seen: tuple[GPU, ...] = ()
        self._mine: tuple[GPU, ...] = ()
        self._locks = ExitStack()

    def claim(self) -> tuple[GPU, ...]:
        """This worker's GPUs, the lowest indexes that are free; raises `BusyError` or `GpusError`."""
        if len(self._mine) < self._count:
            self._seen = self._seen or self._enough(self._see())
            try:
                self._mine = self._take()
            except OSError as error:
                raise GpusError(f"{error.filename or self._directory}: {error.strerror}") from None
        return self._mine

    def release(self) -> None:
        """Give every slot back."""
        self._mine = ()
        self._locks.close()

    def _enough(self, seen: tuple[GPU, ...]) -> tuple[GPU, ...]:
        if len(seen) < self._count:
            raise GpusError(f"{self._count} GPUs needed, {len(seen)} visible in this container")
        return seen

    def _take(self) -> tuple[GPU, ...]:
        with ExitStack() as turn, ExitStack() as locks:
            fcntl.flock(turn.enter_context(_opened(self._directory / _TURN)), fcntl.LOCK_EX)
            slots = {gpu: locks.enter_context(_opened(self._directory / gpu.uuid)) for gpu in self._seen}
            held = {gpu: _holder(slot) for gpu, slot in slots.items() if not _locked(slot)}
            free = tuple(gpu for gpu in self._seen if gpu not in held)
            if len(free) < self._count:
                raise BusyError(self._count, len(slots), held)
            mine, spare = free[: self._count], free[self._count :]
            me = Holder(self._slug)
            for gpu in mine:
                _sign(slots[gpu], me)
            for gpu in spare:
                slots[gpu].close()
            self._locks = locks.pop_all()
            return mine


def _opened(path: Path) -> TextIO:
    return path.open("a+", encoding="utf-8")  # never inherited: a rank that outlives us keeps no lock


def _locked(slot: TextIO) -> bool:
    try:
        fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(slot: TextIO, me: Holder) -> None:
    slot.truncate(0)
    slot.write(json.dumps(asdict(me)))
    slot.flush()


def _holder(slot: TextIO) -> Holder | None:
    """Who has signed; None if that cannot be read."""
    slot.seek(0)
    try:
        return Holder(**json.loads(slot.read()))
    except (ValueError, TypeError):
        return None


def _who_holds(held: Mapping[GPU, Holder | None]) -> str:
    by_holder: dict[Holder | None, list[str]] = {}
    for gpu, holder in held.items():
        by_holder.setdefault(holder, []).append(str(gpu.index))
    return "; ".join(
        f"GPU {', '.join(indexes)} held by {holder or 'a launcher that left no name'}"
        for holder, indexes in by_holder.items()
    )
