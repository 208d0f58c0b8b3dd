"""A write lock on a repository's part of a volume that several hosts share. There the kernel's lock may outlive its
host for ever, or exclude nobody at all. So the holder writes a heartbeat into a file and renews it every *beat_s*
seconds; whoever finds another's waits until it has not changed for three beats. No two hosts' clocks are compared."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar
from uuid import uuid4

from pydantic import ConfigDict, Field, TypeAdapter

from model_cache.manifest import document
from model_cache.manifest.document import STRICT, WrongDocumentError
from model_cache.storage import safe_open

_MAX_BYTES = 4096  # of the lock file, which holds one heartbeat
_SILENT_BEATS = 3  # after which a holder counts as dead
_SETTLING_BEATS = 2  # in which a holder that was overlooked renews its heartbeat


@dataclass(frozen=True)
class Heartbeat:
    """What a run on *host* writes; *beat* counts its renewals."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    run: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    host: str
    beat: Annotated[int, Field(ge=0, lt=1 << 63)]


_HEARTBEAT = TypeAdapter(Heartbeat)


class HeartbeatLock:
    """The write lock in the file at *path*; *run* identifies this run by 12 hex digits. `Volume` owns it."""

    def __init__(self, path: Path, beat_s: float) -> None:
        self._path = path
        self._beat_s = beat_s
        self.run = uuid4().hex[:12]
        self.is_lost = False
        """Whether another run took this one for dead, and holds the lock now; `Volume.require_ownership` asks."""

    @contextmanager
    def held(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold the lock until the block ends; a thread renews it. *on_wait* is called once if another run holds it.
        Raises OSError."""
        self._take(on_wait)
        stop = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(stop,), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            stop.set()
            renewing.join()  # first: it would write the file again
            self._release()

    def _take(self, on_wait: Callable[[], None]) -> None:
        """Write a claim (beat 0) once nobody holds the lock, and return when it has won: of two runs that claim at once
        the last write wins, and each reads again later to see who won."""
        has_waited = False
        while True:
            if other := self._read():
                if not has_waited:
                    on_wait()
                has_waited = True
                self._wait_for(other)
            self._beat(0)
            if self._has_won():
                return self._beat(1)  # no mere claim any more

    def _wait_for(self, other: Heartbeat) -> None:
        """Wait until the lock is released, or has had the same heartbeat, of whichever run, for three beats."""
        seen, since = other, time.monotonic()
        while time.monotonic() - since < _SILENT_BEATS * self._beat_s:
            time.sleep(self._beat_s / 4)  # often enough to see every beat
            if (now := self._read()) is None:
                return
            if now != seen:
                seen, since = now, time.monotonic()

    def _has_won(self) -> bool:
        """Return whether the claim still stands after two beats, in which an overlooked holder would overwrite it."""
        time.sleep(_SETTLING_BEATS * self._beat_s)
        found = self._read()
        return found is not None and found.run == self.run

    def _renew(self, stop: threading.Event) -> None:
        """Renew the heartbeat in a thread, until `held` sets *stop*, or another run has the lock: set `is_lost`."""
        beat = 1
        while not stop.wait(self._beat_s):
            found = self._read()  # a run that only claims has beat 0, and loses
            self.is_lost = found is not None and found.run != self.run and found.beat > 0
            if self.is_lost:
                return
            beat += 1
            with suppress(OSError):  # a full volume: the run itself fails of it, and says so
                self._beat(beat)

    def _beat(self, beat: int) -> None:
        """Replace the lock file whole, so that nobody reads half a heartbeat; *beat* 0 only claims. Raises OSError."""
        draft = self._path.with_name(f"{self._path.name}.{self.run}")
        try:
            text = json.dumps(asdict(Heartbeat(self.run, socket.gethostname(), beat))) + "\n"
            with safe_open.writing(draft.parent, draft.name) as file:
                safe_open.write(file, text.encode())
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)

    def _release(self) -> None:
        """Remove the lock file, unless it has become another run's."""
        found = self._read()
        if found and found.run == self.run:
            self._path.unlink(missing_ok=True)

    def _read(self) -> Heartbeat | None:
        """Return what is in the lock file; None for no heartbeat or a broken one: then nobody holds the lock."""
        try:
            return document.parsed(_HEARTBEAT, document.content(self._path, _MAX_BYTES))
        except (OSError, WrongDocumentError):
            return None
