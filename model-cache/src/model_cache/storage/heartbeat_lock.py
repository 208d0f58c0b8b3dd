"""Who writes to a repository's part of a volume that several hosts share.

There the kernel's lock may stay for ever after its host died, or keep nobody out at all. So whoever writes signs a
file and renews that signature every *beat_s* seconds; whoever finds another's waits until it has stood still for three
beats. No two hosts' clocks are compared.
"""

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

_MOST_BYTES = 4096  # of a signature
_SILENT_BEATS = 3
_SETTLING_BEATS = 2  # within which one who writes renews his signature, if he was overlooked


@dataclass(frozen=True)
class Signature:
    """One run's, on *host*; *beat* counts its renewals."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    run: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    host: str
    beat: Annotated[int, Field(ge=0, lt=1 << 63)]


_SIGNATURE = TypeAdapter(Signature)


class Owner:
    """This run, as it signs in the file at *path*; *run* is its name, 12 hex digits."""

    def __init__(self, path: Path, beat_s: float) -> None:
        self._path = path
        self._beat_s = beat_s
        self.run = uuid4().hex[:12]
        self.is_lost = False
        """Whether another run took this one for dead, and writes now."""

    @contextmanager
    def signed(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Sign until the block ends, as soon as nobody else does; *on_wait* is called once if somebody does.

        Raises OSError.
        """
        self._take(on_wait)
        stop = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(stop,), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            stop.set()
            renewing.join()
            self._leave()

    def _take(self, on_wait: Callable[[], None]) -> None:
        """Two that find nobody sign one over the other: a moment later the file says who stays."""
        say = on_wait
        while True:
            if other := self._read():
                say()
                say = _nothing
                self._wait_for(other)
            self._sign(0)
            if self._stays():
                return self._sign(1)

    def _wait_for(self, other: Signature) -> None:
        """Returns when that run has left, or stood still for long enough."""
        seen, since = other, time.monotonic()
        while time.monotonic() - since < _SILENT_BEATS * self._beat_s:
            time.sleep(self._beat_s / 4)
            if (now := self._read()) is None:
                return
            if now != seen:
                seen, since = now, time.monotonic()

    def _stays(self) -> bool:
        time.sleep(_SETTLING_BEATS * self._beat_s)
        found = self._read()
        return found is not None and found.run == self.run

    def _renew(self, stop: threading.Event) -> None:
        beat = 1
        while not stop.wait(self._beat_s):
            found = self._read()  # one that signed once and waits has beat 0: it is signed over
            self.is_lost = found is not None and found.run != self.run and found.beat > 0
            if self.is_lost:
                return
            beat += 1
            with suppress(OSError):  # a full volume: the run itself meets it, and says so
                self._sign(beat)

    def _sign(self, beat: int) -> None:
        draft = self._path.with_name(f"{self._path.name}.{self.run}")
        try:
            text = json.dumps(asdict(Signature(self.run, socket.gethostname(), beat))) + "\n"
            with safe_open.writing(draft.parent, draft.name) as file:
                safe_open.write(file, text.encode())
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)

    def _leave(self) -> None:
        found = self._read()
        if found and found.run == self.run:
            self._path.unlink(missing_ok=True)

    def _read(self) -> Signature | None:
        """None where nobody signed, or what is there is no signature."""
        try:
            return document.parsed(_SIGNATURE, document.content(self._path, _MOST_BYTES))
        except (OSError, WrongDocumentError):
            return None


def _nothing() -> None:
    """Said already."""
